"""Python loads this at the start of every process of a run "elsewhere": folders are listed in random order, and only
this machine can be reached. Other hosts that are tried are logged in the file that ``ELSEWHERE_CONTACTS`` names."""

import os
import random
import sys

_rng = random.Random(os.getpid())
_listdir, _scandir = os.listdir, os.scandir


def listdir(path="."):
    names = _listdir(path)
    _rng.shuffle(names)
    return names


class scandir:
    def __init__(self, path="."):
        with _scandir(path) as entries:
            self._entries = list(entries)
        _rng.shuffle(self._entries)

    def __iter__(self):
        return iter(self._entries)

    def __next__(self):
        if not self._entries:
            raise StopIteration
        return self._entries.pop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._entries = []


os.listdir, os.scandir = listdir, scandir


def _refuse(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "localhost"  # else a Unix domain socket
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        if "ELSEWHERE_CONTACTS" in os.environ:
            with open(os.environ["ELSEWHERE_CONTACTS"], "a") as file:
                file.write(f"{host}\n")
        raise ConnectionRefusedError(f"{host}: nothing outside this machine can be reached")


sys.addaudithook(_refuse)
