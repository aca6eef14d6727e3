"""Content-addressed store: an expensive step is computed once per combination of settings, data and code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
from safetensors.numpy import load_file

from ruranet_utils import engine
from ruranet_utils.artefacts import (
    Arrays,
    digest_file,
    locked,
    map_rows,
    release,
    row_file,
    save,
    save_rows,
    write_atomically,
)
from ruranet_utils.progress import progress


@dataclass(frozen=True)
class Store:
    """Named arrays on disk, found again by what they were computed from.

    An artefact is ``<root>/<step>/<key>.safetensors``, or one ``<key>.<name>.npy`` per array where arrays may be
    larger than memory, and ``<key>.json``; that one is written last and holds the SHA-256 of the others, so that an
    artefact is either complete or absent.

    Parameters
    ----------
    root : Path
        Created on the first write.
    since_s : float
        Artefacts written before this time (seconds since 1970) count as absent.
    """

    root: Path
    since_s: float = 0.0

    def fetch(
        self, step: str, settings: Mapping, compute: Callable[[], Mapping[str, np.ndarray]], code: Sequence
    ) -> Arrays:
        """Load the arrays of a step, or compute and keep them.

        Parameters
        ----------
        step : str
            Name of the step, a folder of the store.
        settings : mapping
            Everything the result depends on besides the code; must be representable as JSON.
        compute : callable
            Returns the arrays, called only when the store does not hold them.
        code : sequence of modules
            Modules whose code (not comments or docstrings) is part of the key.

        Returns
        -------
        dict of str to ndarray
        """
        return self._fetch(step, settings, code, lambda path: save(path, compute()))

    def fetch_rows(
        self,
        step: str,
        settings: Mapping,
        compute: Callable[[], Iterable[Mapping[str, np.ndarray]]],
        n_rows: int,
        code: Sequence,
    ) -> Arrays:
        """:meth:`fetch` for arrays that may be larger than memory: they are written row by row and mapped when read.

        Parameters
        ----------
        step : str
        settings : mapping
        compute : callable
            Returns the rows one after the other, each with the same names, shapes and types.
        n_rows : int
            Number of rows, at least 1.
        code : sequence of modules

        Returns
        -------
        dict of str to ndarray, shape (n_rows, ...)
            Read-only; :func:`release` gives back the memory of what was read.

        Raises
        ------
        ValueError
            If there are more or fewer rows, or one of another shape.
        """
        return self._fetch(step, settings, code, lambda path: save_rows(path, compute(), n_rows))

    def _fetch(
        self, step: str, settings: Mapping, code: Sequence, write: Callable[[Path], tuple[Arrays, str | dict]]
    ) -> Arrays:
        path = self.path(step, settings, code)
        start = time.perf_counter()
        arrays = self._load(path)
        found = arrays is not None
        if not found:
            with locked(path):
                arrays = self._load(path)  # another process may have computed it while this one waited
                found = arrays is not None
                if not found:
                    arrays, digest = write(path)
                    time_s = time.perf_counter() - start
                    record = {"step": step, "settings": settings, "time_s": time_s, "sha256": digest}
                    text = json.dumps(record, indent=1)
                    write_atomically(path.with_suffix(".json"), lambda file: file.write_text(text))
                    path.with_suffix(".ckpt").unlink(missing_ok=True)
        _note(step=step, key=path.stem[:12], found=found, time_s=round(time.perf_counter() - start, 3))
        return arrays

    def fetch_all(
        self,
        step: str,
        jobs: Mapping[Hashable, tuple[Mapping, Callable[[], Mapping[str, np.ndarray]]]],
        code: Sequence,
        workers: int = 1,
    ) -> dict[Hashable, Arrays]:
        """:meth:`fetch` for many independent jobs; worker processes compute what is missing, side by side.

        Parameters
        ----------
        step : str
        jobs : mapping
            To settings and ``compute``, as for :meth:`fetch`, by any key.
        code : sequence of modules
        workers : int
            Processes, each with one thread. With 1 nothing leaves this process.

        Returns
        -------
        dict
            The arrays by the keys of ``jobs``, in their order.
        """
        label = {"desc": step.replace("_", " "), "unit": "job"}
        missing = [job for job in jobs.values() if not self._holds(self.path(step, job[0], code))]
        calls = [partial(self.fetch, step, *job, code) for job in missing]
        if engine.is_parallel(len(calls), workers):
            for _ in progress(engine.run(calls, workers), total=len(calls), **label):
                pass
        return {key: self.fetch(step, *job, code) for key, job in progress(jobs.items(), **label)}

    def path(self, step: str, settings: Mapping, code: Sequence) -> Path:
        """Where :meth:`fetch` keeps the arrays of this step."""
        key = {"step": step, "settings": settings, "code": [_code_digest(module) for module in code]}
        return self.root / step / f"{_digest_json(key)}.safetensors"

    def checkpoint(self, step: str, settings: Mapping, code: Sequence) -> Path:
        """Where a long step may keep what it has got so far; removed as soon as :meth:`fetch` has its arrays."""
        path = self.path(step, settings, code).with_suffix(".ckpt")
        if path.exists() and path.stat().st_mtime < self.since_s:
            path.unlink()
        return path

    def discard(self, step: str, settings: Mapping, code: Sequence) -> None:
        """Remove one artefact, if it is there."""
        path = self.path(step, settings, code)
        for file in (path.with_suffix(".json"), *path.parent.glob(f"{path.stem}.*")):
            file.unlink(missing_ok=True)

    def _holds(self, path: Path) -> bool:
        record = path.with_suffix(".json")
        return record.exists() and record.stat().st_mtime >= self.since_s

    def _load(self, path: Path) -> Arrays | None:
        """The arrays, or None if the store does not hold them or they are damaged."""
        if not self._holds(path):
            return None
        try:
            digest = json.loads(path.with_suffix(".json").read_text())["sha256"]
            if isinstance(digest, str):
                if digest == digest_file(path):
                    return load_file(path)
            elif all(digest[name] == digest_file(row_file(path, name)) for name in digest):
                return map_rows(path, digest)
        except (OSError, ValueError, KeyError):
            pass
        warnings.warn(f"{path.parent.name}/{path.name} in the store is damaged: it is computed again", stacklevel=3)
        path.with_suffix(".json").unlink(missing_ok=True)
        return None


def digest_arrays(*arrays: np.ndarray | None) -> str:
    """SHA-256 over shapes, types and bytes of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.dtype}{array.shape}".encode())
        rows = np.atleast_1d(array)
        for start in range(0, len(rows), 64):
            digest.update(np.ascontiguousarray(rows[start : start + 64]).view(np.uint8).data)
            release(rows)
    return digest.hexdigest()


def _note(**event) -> None:
    """Append what was done to the run's journal, if one is kept (``RURANET_JOURNAL``)."""
    journal = os.environ.get("RURANET_JOURNAL")
    if journal:
        with open(journal, "a") as file:
            file.write(json.dumps(event) + "\n")


def _digest_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def _code_digest(module: ModuleType) -> str:
    """Digest of a module's syntax tree without docstrings, so that prose can change and results stay."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
