"""Fetch a data set when asked to: ``ruranet data --source idrid``."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import click

from ruranet_utils.data.sources import PAPER, srahim
from ruranet_utils.data.sources.base import Source
from ruranet_utils.storage import paths

REMOTE = {source.name: source for source in (*PAPER, srahim.SOURCE)}
MAX_UNPACKED_BYTES = 50 * 2**30
MAX_RATIO = 200  # of a member's size to its compressed size; photographs hardly shrink at all


def fetch(source: Source, folder: Path) -> None:
    """Download one data set into a folder, which appears complete or not at all.

    What an interruption leaves in ``.<name>.download`` beside it is used by the next attempt (Kaggle) or replaced
    (git).

    Raises
    ------
    ConnectionError
        If it cannot be had, with everything needed to fetch it by hand.
    """
    partial = folder.with_name(f".{folder.name}.download")
    try:
        if source.kaggle:
            # Only downloads into kagglehub's cache are resumed; lying beside the folder, its content can be renamed.
            os.environ["KAGGLEHUB_CACHE"] = str(partial)
            import kagglehub  # slow to load

            Path(kagglehub.dataset_download(source.kaggle)).rename(folder)
        else:
            shutil.rmtree(partial, ignore_errors=True)
            _clone(source.url, srahim.COMMIT, partial)
            partial.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:
        raise ConnectionError(f"{source.name} could not be downloaded ({error}).\n{by_hand(source, folder)}") from error


def by_hand(source: Source, folder: Path) -> str:
    """How to fetch a data set without this program."""
    if not source.kaggle:
        return f"git clone {source.url} {folder} && git -C {folder} checkout {srahim.COMMIT}"
    handle, version = source.kaggle.split("/versions/")
    return (
        f"page: https://www.kaggle.com/datasets/{handle} (version {version})\n"
        f"put its files into: {folder}\n"
        f"or its archive: ruranet data --source {source.name} --archive archive.zip\n"
        "credentials: KAGGLE_USERNAME and KAGGLE_KEY in the environment, or ~/.kaggle/kaggle.json"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive that was downloaded by hand; the folder appears complete or not at all.

    Raises
    ------
    FileExistsError
        If the folder exists.
    ValueError
        If the file is no zip archive, a member would lie outside the folder or is a link, or the archive unpacks to
        more than ``MAX_UNPACKED_BYTES`` or ``MAX_RATIO`` times its size.
    OSError
        If the folder cannot be written to or the disk is full.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: move it away first")
    try:
        with zipfile.ZipFile(archive) as file:
            _check_members(archive, file.infolist())
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                file.extractall(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is no zip archive, or a damaged one: {error}") from error


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{archive} holds {member.filename!r}, which would lie outside the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{archive} holds the link {member.filename!r}, expected files")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1000):
            raise ValueError(
                f"{archive} holds {member.filename!r} of {member.file_size:,} bytes in {member.compress_size:,}: "
                "no photograph is packed so tightly"
            )
    total = sum(member.file_size for member in members)
    if not total:
        raise ValueError(f"{archive} holds no file")
    if total > MAX_UNPACKED_BYTES:
        raise ValueError(f"{archive} unpacks to {total:,} bytes, expected at most {MAX_UNPACKED_BYTES:,}")


def _clone(url: str, commit: str, folder: Path) -> None:
    for command in (["clone", "--progress", url, str(folder)], ["-C", str(folder), "checkout", "--quiet", commit]):
        done = subprocess.run(["git", *command], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.strip().splitlines()[-1] if done.stderr else f"git {command[0]} failed")


@click.command()
@click.option("--source", "names", multiple=True, type=click.Choice(sorted(REMOTE)), help="Repeatable.")
@click.option("--archive", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Unpack this instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(names: tuple[str, ...], archive: Path | None, as_json: bool) -> None:
    """Download data sets into RURANET_DATA_ROOT (else data/raw). Without --source, say what is there."""
    root = paths.data_root()
    if archive and len(names) != 1:
        raise click.UsageError("--archive needs exactly one --source")
    try:
        for name in names:
            if archive:
                unpack(archive, root / name)
            elif not (root / name).is_dir():
                fetch(REMOTE[name], root / name)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    states = [_state(REMOTE[name], root / name) for name in names or REMOTE]
    if as_json:
        print(json.dumps(states, indent=1))
        return
    for state in states:
        there = "found  " if state["found"] else "missing"
        print(f"{there} {state['source']:38} {state['folder'] if names else state['from']}\n{'':8}{state['license']}")


def _state(source: Source, folder: Path) -> dict[str, str | bool]:
    return {
        "source": source.name,
        "found": folder.is_dir(),
        "folder": str(folder),
        "from": source.kaggle or source.url,
        "license": source.license,
    }
