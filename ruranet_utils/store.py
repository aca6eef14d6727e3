"""Content-addressed store: an expensive step is computed once per combination of settings, data and code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from joblib import Parallel, delayed, parallel_config
from safetensors.numpy import load_file, save_file

from ruranet_utils import release_memory
from ruranet_utils.progress import progress

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Store:
    """Named arrays on disk, found again by what they were computed from.

    An artefact is two files, ``<root>/<step>/<key>.safetensors`` and ``<key>.json``; the second is written last
    and holds the SHA-256 of the first, so that an artefact is either complete or absent.

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
        path = self.path(step, settings, code)
        start = time.perf_counter()
        arrays = self._load(path) if self._holds(path) else None
        found = arrays is not None
        if not found:
            arrays = {name: np.ascontiguousarray(value) for name, value in compute().items()}
            _save(path, arrays, {"step": step, "settings": settings, "time_s": time.perf_counter() - start})
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
        if min(workers, len(missing)) > 1:
            with parallel_config("loky", n_jobs=min(workers, len(missing)), inner_max_num_threads=1):
                variables = {name: value for name, value in os.environ.items() if name.startswith("RURANET_")}
                calls = (delayed(_work)(self, step, *job, code, variables) for job in missing)
                for _ in progress(Parallel(return_as="generator_unordered")(calls), total=len(missing), **label):
                    pass
        return {key: self.fetch(step, *job, code) for key, job in progress(jobs.items(), **label)}

    def path(self, step: str, settings: Mapping, code: Sequence) -> Path:
        """Where :meth:`fetch` keeps the arrays of this step."""
        key = {"step": step, "settings": settings, "code": [_code_digest(module) for module in code]}
        return self.root / step / f"{_digest_json(key)}.safetensors"

    def discard(self, step: str, settings: Mapping, code: Sequence) -> None:
        """Remove one artefact, if it is there."""
        path = self.path(step, settings, code)
        for file in (path.with_suffix(".json"), path):
            file.unlink(missing_ok=True)

    def _holds(self, path: Path) -> bool:
        record = path.with_suffix(".json")
        return record.exists() and record.stat().st_mtime >= self.since_s

    def _load(self, path: Path) -> Arrays | None:
        try:
            if json.loads(path.with_suffix(".json").read_text())["sha256"] == digest_file(path):
                return load_file(path)
        except (OSError, ValueError, KeyError):
            pass
        warnings.warn(f"{path.parent.name}/{path.name} in the store is damaged: it is computed again", stacklevel=3)
        return None


def digest_arrays(*arrays: np.ndarray | None) -> str:
    """SHA-256 over shapes, types and bytes of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(path: Path, arrays: Arrays, record: dict) -> None:
    write_atomically(path, lambda file: save_file(arrays, file))
    record = {**record, "sha256": digest_file(path)}
    write_atomically(path.with_suffix(".json"), lambda file: file.write_text(json.dumps(record, indent=1)))


def _work(
    store: Store, step: str, settings: Mapping, compute: Callable, code: Sequence, variables: dict[str, str]
) -> None:
    """One job in a worker process; its arrays stay in the store."""
    os.environ.update(variables, TQDM_DISABLE="1")  # bars of several processes would write over each other
    store.fetch(step, settings, compute, code)
    release_memory()  # loky replaces a worker that keeps more than 300 MB, which costs its imports again


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
