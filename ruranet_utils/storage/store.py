"""Content-addressed store: an expensive step is computed once per combination of settings, data, code and machine.

The store's folder holds the root ``2``, named after the layout's number: an older layout beside it is never read.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ruranet_utils.storage import machine
from ruranet_utils.storage.artefacts import (
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
from ruranet_utils.storage.progress import note, progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.workers import is_parallel, run

PART_PX = 32 * 512**2  # pixels of the images of a part


@dataclass(frozen=True)
class Store:
    """Named arrays on disk, keyed by what they were computed from.

    An artifact is ``<root>/<step>/<key>.safetensors``, or one ``<key>.<name>.npy`` per array if arrays may be larger
    than memory, and ``<key>.json``, which is written last and holds the SHA-256 of the others, so that an artifact is
    either complete or absent. The key is a digest of the step's version, constants and libraries
    (:mod:`ruranet_utils.storage.steps`), of the settings, and of the instructions that the process computes with.

    Parameters
    ----------
    root : Path
        Created on the first write.
    since_s : float
        Artefacts written before this time (seconds since 1970) count as absent.
    """

    root: Path
    since_s: float = 0.0

    def fetch(self, step: Step, settings: Mapping, compute: Callable[[], Mapping[str, np.ndarray]]) -> Arrays:
        """Load the arrays of a step, or compute and keep them.

        Parameters
        ----------
        step : Step
        settings : mapping
            Everything else that the result depends on; must be serializable as JSON.
        compute : callable
            Returns the arrays, called only when the store does not hold them.

        Returns
        -------
        dict of str to ndarray
        """
        return self._fetch(step, settings, lambda path: save(path, compute()))

    def fetch_rows(
        self,
        step: Step,
        settings: Mapping,
        compute: Callable[[], Iterable[Mapping[str, np.ndarray]]],
        n_rows: int,
    ) -> Arrays:
        """:meth:`fetch` for arrays that may be larger than memory: they are written row by row and mapped when read.

        Parameters
        ----------
        step : Step
        settings : mapping
        compute : callable
            Returns the rows in order, all with the same names, shapes and types.
        n_rows : int
            Number of rows, at least 1.

        Returns
        -------
        dict of str to ndarray, shape (n_rows, ...)
            Read-only; :func:`release` gives back the memory of what was read.

        Raises
        ------
        ValueError
            If there are more or fewer rows, or one has a different shape.
        """
        return self._fetch(step, settings, lambda path: save_rows(path, compute(), n_rows))

    def _fetch(self, step: Step, settings: Mapping, write: Callable[[Path], tuple[Arrays, str | dict]]) -> Arrays:
        path = self.path(step, settings)
        start = time.perf_counter()
        arrays = self._load(path)
        found = arrays is not None
        if not found:
            with locked(path):
                arrays = self._load(path)  # another process may have computed it while this one waited
                found = arrays is not None
                if not found:
                    arrays, digest = write(path)
                    record = {"key": _key(step, settings), "time_s": time.perf_counter() - start, "sha256": digest}
                    text = json.dumps(record, indent=1)
                    write_atomically(path.with_suffix(".json"), lambda file: file.write_text(text))
                    path.with_suffix(".ckpt").unlink(missing_ok=True)
        note(step=step.name, key=_short(path), found=found, time_s=round(time.perf_counter() - start, 3))
        return arrays

    def fetch_all(
        self,
        step: Step,
        jobs: Mapping[Hashable, tuple[Mapping, Callable[[], Mapping[str, np.ndarray]]]],
        workers: int = 1,
    ) -> dict[Hashable, Arrays]:
        """:meth:`fetch` for many independent jobs; worker processes compute what is missing in parallel.

        Parameters
        ----------
        step : Step
        jobs : mapping
            From any key to settings and ``compute``, as for :meth:`fetch`.
        workers : int
            Processes, each with one thread. With 1, everything runs in this process.

        Returns
        -------
        dict
            The arrays by the keys of ``jobs``, in their order.
        """
        self.prepare([(step, *job) for job in jobs.values()], workers)
        label = {"desc": step.name.replace("_", " "), "unit": "job"}
        return {key: self.fetch(step, *job) for key, job in progress(jobs.items(), **label)}

    def prepare(
        self, jobs: Sequence[tuple[Step, Mapping, Callable[[], Mapping[str, np.ndarray]]]], workers: int = 1
    ) -> None:
        """Compute in worker processes what is missing of several steps, in this order; :meth:`fetch` will find it.

        Parameters
        ----------
        jobs : sequence of tuple
            Step, settings and ``compute``, as for :meth:`fetch`.
        workers : int
            With 1, nothing is done: :meth:`fetch` computes it when it is asked for.
        """
        missing = [job for job in jobs if not self._holds(self.path(*job[:2]))]
        title = ", ".join(dict.fromkeys(step.name.replace("_", " ") for step, *_ in missing))
        if len(missing) > 1:
            note(planned=title, keys=[_short(self.path(*job[:2])) for job in missing])
        if is_parallel(len(missing), workers):
            calls = [partial(self.fetch, *job) for job in missing]
            for _ in progress(run(calls, workers), total=len(calls), desc=title, unit="job"):
                pass

    def fetch_parts(
        self,
        step: Step,
        jobs: Mapping[Hashable, tuple[Mapping, Callable[..., Mapping[str, np.ndarray]]]],
        *data: np.ndarray,
        workers: int = 1,
    ) -> dict[Hashable, Arrays]:
        """:meth:`fetch_all` for what is computed image by image: some images at a time, so that all workers are busy.

        Parameters
        ----------
        step : Step
        jobs : mapping
            From any key to settings, to which the data are added, and a function from some rows of the data to arrays
            with as many rows.
        *data : ndarray, shape (n, ..., h, w)
            The images, and whatever else there is of each.
        workers : int

        Returns
        -------
        dict
            By the keys of ``jobs``, the arrays of all rows.
        """
        step_rows = max(1, PART_PX // (data[0].shape[-2] * data[0].shape[-1]))
        parts = [[array[i : i + step_rows] for array in data] for i in range(0, len(data[0]), step_rows)]
        digests = [digest_arrays(*part) for part in parts]
        found = self.fetch_all(
            step,
            {
                (key, number): ({**settings, "rows": digests[number]}, partial(compute, *part))
                for number, part in enumerate(parts)
                for key, (settings, compute) in jobs.items()
            },
            workers,
        )
        return {
            key: {name: np.concatenate([found[key, number][name] for number in range(len(parts))]) for name in first}
            for key, first in ((key, found[key, 0]) for key in jobs)
        }

    def path(self, step: Step, settings: Mapping) -> Path:
        """Where :meth:`fetch` keeps the arrays of this step."""
        return self.root / step.name / f"{_digest_json(_key(step, settings))}.safetensors"

    def checkpoint(self, step: Step, settings: Mapping) -> Path:
        """Where a long step may keep its progress; removed as soon as :meth:`fetch` has its arrays."""
        path = self.path(step, settings).with_suffix(".ckpt")
        if path.exists() and path.stat().st_mtime < self.since_s:
            path.unlink()
        return path

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
        warnings.warn(f"{path.parent.name}/{path.name} in the store is damaged: recomputing it", stacklevel=3)
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


def _short(path: Path) -> str:
    return path.stem[:12]


def _key(step: Step, settings: Mapping) -> dict:
    """Everything a result depends on. Steps that only need numpy and Pillow do not depend on the
    instructions."""
    key = {"step": step.name, **step.dependencies, "settings": settings}
    if key["libraries"].keys() - {"numpy", "pillow", "imagehash"}:
        key["instructions"] = machine.instructions(with_torch="torch" in key["libraries"])
    return key


def _digest_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
