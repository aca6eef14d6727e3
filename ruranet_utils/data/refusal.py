"""What is wrong with a file: always which file, what was found in it, what was expected, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Unusable(ValueError):
    """Files or folders that cannot be used."""


class Refused(Unusable):
    """A file or folder that cannot be used.

    Attributes
    ----------
    file : Path
    found, expected, remedy : str
        Parts of the sentence "<file> <found>, expected <expected>: <remedy>".
    """

    def __init__(self, file: Path, found: str, expected: str, remedy: str) -> None:
        super().__init__(file, found, expected, remedy)
        self.file, self.found, self.expected, self.remedy = file, found, expected, remedy

    def __str__(self) -> str:
        return printable(f"{self.file} {self.found}, expected {self.expected}: {self.remedy}")


def refuse(problems: Sequence[ValueError]) -> None:
    """Raise the problem, or :class:`Unusable` with every problem if there are several; return if there are none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Unusable("\n  ".join([f"{len(problems)} problems:", *map(str, problems)]))


def printable(path: object) -> str:
    """A path that every terminal can print: bytes that are not UTF-8 appear as numbers."""
    return str(path).encode("utf-8", "backslashreplace").decode()
