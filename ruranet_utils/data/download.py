"""Fetch a data set when asked to: ``ruranet data --source idrid``."""

from __future__ import annotations

import json
import lzma
import os
import shlex
import shutil
import stat
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import click

from ruranet_utils.data.sources import PAPER, READERS, idrid, srahim
from ruranet_utils.data.sources.base import Record, Source
from ruranet_utils.storage import paths

REMOTE = {source.name: source for source in (*PAPER, srahim.SOURCE)}
MAX_UNPACKED_BYTES = 50 * 2**30
MAX_RATIO = 200  # unpacked to packed size; photographs hardly shrink at all, empty masks do
HARMLESS_BYTES = 256 * 2**20  # a member or archive that unpacks to less may have any ratio
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ENCRYPTED = 1  # flag bit of a member


def fetch(source: Source, folder: Path) -> None:
    """Download one data set into a folder, which appears complete or not at all.

    What an interruption leaves in ``.<name>.download`` beside it is reused by the next attempt (Kaggle) or replaced
    (git).

    Raises
    ------
    ConnectionError
        If it cannot be downloaded; the message says how to fetch it by hand.
    """
    unfinished = folder.with_name(f".{folder.name}.download")
    try:
        if source.kaggle:
            # Only downloads into kagglehub's cache can be resumed; it sits beside the folder, so that its content can
            # be renamed.
            os.environ["KAGGLEHUB_CACHE"] = str(unfinished)
            import kagglehub  # slow to load

            Path(kagglehub.dataset_download(source.kaggle)).rename(folder)
        else:
            shutil.rmtree(unfinished, ignore_errors=True)
            _clone(source.url, srahim.COMMIT, unfinished)
            unfinished.rename(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
    except Exception as error:
        raise ConnectionError(f"{source.name} could not be downloaded ({error}).\n{by_hand(source, folder)}") from error


def by_hand(source: Source, folder: Path) -> str:
    """How to fetch a data set without this program."""
    if not source.kaggle:
        quoted = shlex.quote(str(folder))
        return f"git clone {source.url} {quoted} && git -C {quoted} checkout {srahim.COMMIT}"
    handle, version = source.kaggle.split("/versions/")
    return (
        f"page: https://www.kaggle.com/datasets/{handle} (version {version})\n"
        f"put its files into: {folder}\n"
        f"or its archive: ruranet data --source {source.name} --archive archive.zip\n"
        "credentials: KAGGLE_USERNAME and KAGGLE_KEY in the environment, or ~/.kaggle/kaggle.json"
    )


def unpack(archives: Sequence[Path], folder: Path) -> None:
    """Unpack zip archives downloaded by hand into one folder, which appears complete or not at all.

    Raises
    ------
    FileExistsError
        If the folder exists.
    ValueError
        If a file is not a zip archive, is encrypted or is compressed by a method that Python does not read; if a member
        would land outside the folder or is a link; if an archive unpacks to more than ``MAX_UNPACKED_BYTES``; if an
        archive or member of more than ``HARMLESS_BYTES`` unpacks to more than ``MAX_RATIO`` times its size.
    OSError
        If the folder cannot be written to or the disk is full.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists: move it away first")
    with ExitStack() as stack:
        files = [stack.enter_context(_open(archive)) for archive in archives]
        for archive, file in zip(archives, files, strict=True):
            _check_members(archive, file.infolist(), folder)
        unfinished = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            for archive, file in zip(archives, files, strict=True):
                with _damage_named(archive):
                    file.extractall(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _open(archive: Path) -> zipfile.ZipFile:
    with _damage_named(archive):
        return zipfile.ZipFile(archive)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{archive} is not a zip archive, or is damaged: {error}") from error


def _check_members(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{archive} holds {member.filename!r}, which would lie outside the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{archive} holds the link {member.filename!r}, expected files")
        if member.flag_bits & ENCRYPTED:
            raise ValueError(
                f"{archive} is encrypted: unpack it with its password, using another program, into {folder}"
            )
        if member.compress_type not in READABLE:
            method = zipfile.compressor_names.get(member.compress_type, f"method {member.compress_type}")
            raise ValueError(
                f"{archive} is compressed by {method}, which Python does not read: unpack it by another program, "
                f"such as 7-Zip, into {folder}"
            )
        _check_ratio(f"{archive} holds {member.filename!r} of", member.file_size, member.compress_size)
    total = sum(member.file_size for member in members)
    if not total:
        raise ValueError(f"{archive} holds no files")
    if total > MAX_UNPACKED_BYTES:
        raise ValueError(f"{archive} unpacks to {total:,} bytes, expected at most {MAX_UNPACKED_BYTES:,}")
    _check_ratio(f"{archive} unpacks to", total, archive.stat().st_size)


def _check_ratio(what: str, unpacked: int, packed: int) -> None:
    if unpacked > max(HARMLESS_BYTES, MAX_RATIO * packed):
        raise ValueError(f"{what} {unpacked:,} bytes from {packed:,}: no photographs are packed so tightly")


def _clone(url: str, commit: str, folder: Path) -> None:
    for command in (["clone", "--progress", url, str(folder)], ["-C", str(folder), "checkout", "--quiet", commit]):
        done = subprocess.run(["git", *command], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.strip().splitlines()[-1] if done.stderr else f"git {command[0]} failed")


@click.command()
@click.option("--source", "names", multiple=True, type=click.Choice(sorted(REMOTE)), help="Repeatable.")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Unpack this instead. Repeatable: IDRiD comes in three.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(names: tuple[str, ...], archives: tuple[Path, ...], as_json: bool) -> None:
    """Download data sets into RURANET_DATA_ROOT (else data/raw). Without --source, list what is there."""
    root = paths.data_root()
    if archives and len(names) != 1:
        raise click.UsageError("--archive needs exactly one --source")
    try:
        for name in names:
            if archives:
                unpack(archives, root / name)
            elif not (root / name).is_dir():
                fetch(REMOTE[name], root / name)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    states = [_state(REMOTE[name], root / name) for name in names or REMOTE]
    if as_json:
        print(json.dumps(states, indent=1))
        return
    for state in states:
        where = state["folder"] if names else state["from"]
        print(f"{state['state']:10} {state['source']:38} {where}\n{'':11}{state['problem'] or state['license']}")


def _problem(read: Callable[[Path], list[Record]], folder: Path) -> str:
    try:
        read(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _state(source: Source, folder: Path) -> dict[str, str]:
    """What the source's own loader says of a folder; no photograph is decoded."""
    state, problem = "missing", ""
    if folder.is_dir():
        state, problem = "usable", _problem(READERS[source.name], folder)
        if problem:
            state = "incomplete"
            if source is idrid.SOURCE and not _problem(partial(idrid.records, parts="A"), folder):
                problem = f"enough for the profile open, which reads part A; for paper: {problem}"
    return {
        "source": source.name,
        "state": state,
        "problem": problem,
        "folder": str(folder),
        "from": source.kaggle or source.url,
        "license": source.license,
    }
