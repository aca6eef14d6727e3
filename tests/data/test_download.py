"""Downloads: asked for one by one, explained where there is no network; archives are unpacked with care."""

import io
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import kagglehub
import numpy as np
import pytest
import requests
from click.testing import CliRunner
from PIL import Image

from ruranet_utils.data import download
from ruranet_utils.data.download import REMOTE as SOURCES
from ruranet_utils.data.download import main, unpack
from ruranet_utils.data.sources import idrid


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RURANET_DATA_ROOT", str(tmp_path / "raw"))
    return tmp_path / "raw"


@pytest.fixture
def asked(monkeypatch):
    """What kagglehub was asked for; it answers with one file."""
    calls = []

    def dataset_download(handle):
        calls.append(handle)
        files = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / handle
        files.mkdir(parents=True)
        (files / "a.jpg").write_bytes(b"")
        return str(files)

    monkeypatch.setenv("KAGGLEHUB_CACHE", "")  # restored after the test
    monkeypatch.setattr(kagglehub, "dataset_download", dataset_download)
    return calls


def run(*arguments: str):
    return CliRunner().invoke(main, arguments)


def test_nothing_is_downloaded_without_being_asked_for(root, asked):
    done = run()
    assert done.exit_code == 0 and not asked and not root.exists()
    assert done.output.count("missing") == len(SOURCES) and "CC BY 4.0" in done.output


def test_a_source_is_fetched_by_its_pinned_handle_and_only_once(root, asked):
    for _ in range(2):
        done = run("--source", "refuge2", "--source", "idrid")
        assert done.exit_code == 0 and str(root / "idrid") in done.output
    assert asked == ["victorlemosml/refuge2/versions/1", SOURCES["idrid"].kaggle]
    assert "incomplete refuge2" in run().output  # one file of no use
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) == [
        "idrid", "idrid/a.jpg", "refuge2", "refuge2/a.jpg"
    ]  # fmt: skip


def test_an_interrupted_download_is_not_taken_for_the_data_set_and_is_continued(root, monkeypatch, asked):
    whole = kagglehub.dataset_download

    def interrupted(handle):
        archive = Path(os.environ["KAGGLEHUB_CACHE"]) / "1.archive"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(b"half")
        raise requests.ConnectionError("reset")

    def continued(handle):
        assert (Path(os.environ["KAGGLEHUB_CACHE"]) / "1.archive").read_bytes() == b"half"
        return whole(handle)

    monkeypatch.setattr(kagglehub, "dataset_download", interrupted)
    assert run("--source", "refuge2").exit_code == 1 and re.search("missing +refuge2", run().output)
    monkeypatch.setattr(kagglehub, "dataset_download", continued)
    assert run("--source", "refuge2").exit_code == 0
    assert [path.name for path in root.iterdir()] == ["refuge2"]


@pytest.mark.parametrize("error", [requests.ConnectionError("no network"), RuntimeError("403 Forbidden")])
def test_without_network_the_answer_says_what_to_do(root, monkeypatch, error):
    def refuse(handle):
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    done = run("--source", "refuge2")
    assert done.exit_code == 1
    for part in (str(error), "kaggle.com/datasets/victorlemosml/refuge2", str(root / "refuge2"), "KAGGLE_USERNAME"):
        assert part in done.output


def test_srahim_comes_by_git_at_its_commit(root, monkeypatch):
    calls = []

    def git(command, **options):
        calls.append(command[1:])
        if command[1] == "clone" and len(calls) < 3:
            Path(command[-1]).mkdir(parents=True)
        return download.subprocess.CompletedProcess(command, int(len(calls) > 2), stderr="fatal: unable to access")

    monkeypatch.setattr(download.subprocess, "run", git)
    assert run("--source", "srahim").exit_code == 0
    assert calls[0][-2:] == [SOURCES["srahim"].url, str(root / ".srahim.download")]
    assert calls[1][-1] == "53a2a3aa" and (root / "srahim").is_dir()
    (root / "srahim").rmdir()
    done = run("--source", "srahim")
    assert done.exit_code == 1 and "unable to access" in done.output and "git clone" in done.output


def test_unknown_sources_are_answered_with_the_valid_ones(root):
    done = run("--source", "messidor")
    assert done.exit_code == 2 and "refuge2" in done.output


# Archives


@pytest.fixture
def archive(tmp_path):
    """A function that writes a zip archive of the given members."""

    def write(members: dict[str, bytes], **attributes) -> Path:
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = attributes.get("external_attr", 0o644 << 16)
                file.writestr(info, content)
        return path

    return write


def test_an_archive_is_unpacked_under_its_source(root, archive):
    done = run("--source", "idrid", "--archive", str(archive({"A. Segmentation/ä b.txt": b"1"})))
    assert done.exit_code == 0 and (root / "idrid/A. Segmentation/ä b.txt").read_bytes() == b"1"
    done = run("--source", "idrid", "--archive", str(archive({"a": b""})))
    assert done.exit_code == 1 and "already exists" in done.output
    assert run("--archive", str(archive({"a": b""}))).exit_code == 2


def test_the_parts_of_idrid_are_unpacked_into_one_folder(root, tmp_path, archive):
    parts = [archive({f"{part}/a.txt": b"1"}).rename(tmp_path / f"{part}.zip") for part in idrid.PARTS]
    assert run("--source", "idrid", *(word for part in parts for word in ("--archive", str(part)))).exit_code == 0
    assert sorted(path.name for path in (root / "idrid").iterdir()) == sorted(idrid.PARTS)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"damaged\.zip is not a zip archive"):
        unpack([parts[0], damaged], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ({"../evil.txt": b"1"}, {}, "would lie outside"),
        ({"/etc/evil": b"1"}, {}, "would lie outside"),
        ({"a\\..\\..\\evil": b"1"}, {}, "would lie outside"),
        ({"good.txt": b"/etc/passwd"}, {"external_attr": 0o120777 << 16}, "holds the link 'good.txt'"),
        ({"bomb.jpg": bytes(10**7)}, {}, "no photographs are packed so tightly"),
        ({f"{i}.jpg": bytes(10**6) for i in range(9)}, {}, "no photographs are packed so tightly"),
    ],
    ids=["parent", "absolute", "backslashes", "link", "bomb", "small bombs"],
)
def test_dangerous_archives_are_refused_and_nothing_is_written(
    tmp_path, archive, monkeypatch, members, options, message
):
    monkeypatch.setattr(download, "HARMLESS_BYTES", 2 * 10**6)
    with pytest.raises(ValueError, match=message):
        unpack([archive({"good.txt": b"1", **members}, **options)], tmp_path / "raw" / "idrid")
    assert not (tmp_path / "raw").exists()


def test_masks_that_shrink_to_almost_nothing_are_no_bomb(tmp_path, archive):
    """IDRiD's masks are uncompressed 1-bit TIFFs of 1.5 MB; three of four deflate by more than 200:1."""
    mask = np.zeros((2848, 4288), bool)
    mask[900:930, 1800:1850] = True
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "TIFF")
    path = archive({f"A. Segmentation/{i:02d}_MA.tif": file.getvalue() for i in range(4)})
    assert 4 * len(file.getvalue()) > download.MAX_RATIO * path.stat().st_size
    unpack([path], tmp_path / "raw")
    assert (tmp_path / "raw/A. Segmentation/03_MA.tif").read_bytes() == file.getvalue()


@pytest.mark.parametrize(
    ("flags", "method", "message"),
    [
        (1, zipfile.ZIP_DEFLATED, "is encrypted: unpack it with its password"),
        (0, 9, "is compressed by deflate64, which Python does not read: unpack it by another program"),
        (0, 93, "is compressed by .*, which Python does not read"),
    ],
)
def test_archives_that_python_cannot_read_are_refused_with_the_remedy(root, tmp_path, archive, flags, method, message):
    path = archive({"retinal-lesions-v20191227/images_896x896/1_left.jpg": os.urandom(99)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of the member, of its entry in the directory
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<HH", flags, method)
    path.write_bytes(data)
    done = run("--source", "retinal_lesions", "--archive", str(path))
    assert done.exit_code == 1 and re.search(message, done.output) and len(done.output.splitlines()) == 1
    assert str(tmp_path / "raw/retinal_lesions") in done.output and not (tmp_path / "raw").exists()


def test_an_archive_larger_than_the_limit_is_refused(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(ValueError, match="unpacks to 120 bytes, expected at most 100"):
        unpack([archive({"a": os.urandom(60), "b": os.urandom(60)})], tmp_path / "raw")


def overwritten(data):
    """With the end of the compressed bytes damaged; the headers are whole."""
    middle = data.index(b"PK\x01\x02") // 2
    return data[:middle] + bytes(100) + data[middle + 100 :]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"no archive", lambda data: data[: len(data) // 2], overwritten]
)
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, archive, damage):
    path = archive({"a": os.urandom(5000)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"archive\.zip is not a zip archive, or is damaged"):
        unpack([path], tmp_path / "raw" / "idrid")
    assert not list((tmp_path / "raw").glob("*"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_no_folder(tmp_path, archive, monkeypatch, error):
    def fail(self, path):
        (Path(path) / "half").write_bytes(b"1")
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
    with pytest.raises(type(error)):
        unpack([archive({"a": b"1"})], tmp_path / "raw" / "idrid")
    assert list((tmp_path / "raw").iterdir()) == []
    shutil.rmtree(tmp_path / "raw")
