"""Where everything is: the only module that knows folders and environment variables."""

import hashlib
import os
from pathlib import Path

from ruranet_utils.profiles import Profile

ROOT = Path(os.environ.get("RURANET_ROOT", Path(__file__).resolve().parents[2]))
NOTEBOOKS = ROOT / "notebooks"


def store() -> Path:
    """Folder for what runs keep (``RURANET_STORE``, else ``data/store``): finished steps and trained models."""
    return from_root(os.environ.get("RURANET_STORE") or "data/store")


def steps() -> Path:
    """Folder of the finished steps in the store. The number is the layout's; other layouts are never read."""
    return store() / "2"


def models(profile: str) -> Path:
    """Folder of the models that a profile has trained, ``models`` in the store, or of the ``"shipped"`` model."""
    return ROOT / "models" if profile == "shipped" else store() / "models" / profile


def results(profile: Profile) -> str:
    """Name of a run's results: the profile's; for a reader's own folder, its name and a six-digit hash of its path."""
    if not profile.data_dir:
        return profile.name
    folder = from_root(profile.data_dir).resolve()
    return f"{profile.name}/{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]}"


def figures(results: str) -> Path:
    """Folder of the tables and figures that :func:`results` names, below ``RURANET_FIGURES`` (else ``figures``)."""
    return from_root(os.environ.get("RURANET_FIGURES") or "figures") / results


def weights_dir() -> Path | None:
    """Folder searched first for ``<backbone>.pth`` (``RURANET_WEIGHTS_DIR``), if the variable is set."""
    value = os.environ.get("RURANET_WEIGHTS_DIR")
    return from_root(value) if value else None


def data_root() -> Path:
    """Folder of the data sets, downloaded or put there by hand (``RURANET_DATA_ROOT``, else ``data/raw``)."""
    return from_root(os.environ.get("RURANET_DATA_ROOT") or "data/raw")


def from_root(value: str) -> Path:
    """A path as the user gave it; a relative one starts at the project's root, not the kernel's working directory."""
    return ROOT / Path(value).expanduser()
