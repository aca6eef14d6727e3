"""The files of one artifact in the store: arrays in safetensors or row by row, written whole or not at all."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copyreg import pickle as register_reducer
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ruranet_utils.storage.progress import note, progress

Arrays = dict[str, np.ndarray]
PATIENCE_S = 5  # after this, a process says that it is waiting for another


def save(path: Path, computed: Mapping[str, np.ndarray]) -> tuple[Arrays, str]:
    """Write arrays to one file; returns them and the file's SHA-256."""
    arrays = {name: np.ascontiguousarray(value) for name, value in computed.items()}
    write_atomically(path, lambda file: save_file(arrays, file))
    return arrays, digest_file(path)


def save_rows(path: Path, rows: Iterable[Mapping[str, np.ndarray]], n_rows: int) -> tuple[Arrays, dict[str, str]]:
    """Write rows to one file per array; returns the mapped arrays and the files' SHA-256."""
    rows = iter(rows)
    first = {name: np.asarray(value) for name, value in next(rows).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = {name: row_file(path, name).with_suffix(f".{os.getpid()}.part") for name in first}
    with _naming(path), _removed_at_the_end(partial.values()):
        with ExitStack() as stack:
            files = {name: stack.enter_context(file.open("wb")) for name, file in partial.items()}
            for name, value in first.items():
                shape = (n_rows, *value.shape)
                header = {"descr": value.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(files[name], header)
            n_written = 0
            for row in chain([first], rows):
                n_written += 1
                for name, value in first.items():
                    if np.shape(row[name]) != value.shape:
                        raise ValueError(f"{name}: row {n_written} has shape {np.shape(row[name])}, not {value.shape}")
                    files[name].write(np.asarray(row[name], dtype=value.dtype).tobytes())
        if n_written != n_rows:
            raise ValueError(f"expected {n_rows} rows, got {n_written}")
        for name, file in partial.items():
            os.replace(file, row_file(path, name))
    digests = {name: digest_file(row_file(path, name)) for name in first}
    return map_rows(path, digests), digests


def map_rows(path: Path, names: Iterable[str]) -> Arrays:
    """What :func:`save_rows` wrote, read-only and not yet in memory."""
    return {name: np.load(row_file(path, name), mmap_mode="r") for name in names}


def row_file(path: Path, name: str) -> Path:
    """File of one array of an artifact written row by row."""
    return path.with_suffix(f".{name}.npy")


def release(array: np.ndarray) -> None:
    """Release the memory of a memory-mapped array; it is read from disk again when needed. Others are left alone."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place in one step.

    Raises
    ------
    OSError
        If the disk is full or read-only. The message names the file; nothing of it is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with _naming(path), _removed_at_the_end([temporary]):
        write(temporary)
        os.replace(temporary, path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time compute an artifact; the system releases the lock of a dead process."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            waiting = f"waiting for {path.parent.name}/{path.stem[:12]}, which another process is computing"
            note(waiting=waiting)
            with progress(desc=waiting, bar_format="{desc} ({elapsed})"):
                lock.acquire()
    try:
        yield
    finally:
        lock.release()
        path.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make write errors name the file; by themselves, those of a full disk do not."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "filename", None):
            raise
        raise OSError(f"{path} cannot be written: {error}") from error


@contextmanager
def _removed_at_the_end(files: Iterable[Path]) -> Iterator[None]:
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _reduce_mapped(array: np.memmap) -> tuple:
    """Pickle a mapped file by name, so that a worker process maps it too instead of receiving a copy."""
    if isinstance(array.base, mmap.mmap):
        return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape)
    return np.asarray(array).__reduce__()


register_reducer(np.memmap, _reduce_mapped)
