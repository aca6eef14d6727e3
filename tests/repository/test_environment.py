import re
import tomllib

import pytest
import yaml

from ruranet_utils.storage import paths


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    lock = tomllib.loads((paths.ROOT / "uv.lock").read_text())
    return {package["name"]: package["version"] for package in lock["package"] if "version" in package}


def conda_pins() -> dict[str, str]:
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    return dict(re.match(r"([\w.-]+)==([\w.+]+)", line).groups() for line in pip)


def test_conda_environment_names_the_versions_of_the_lock(locked):
    pins = conda_pins()
    assert pins == {name: locked[name] for name in pins}
    assert set(locked) - set(pins) == {"ruranet-utils"}


def test_direct_dependencies_are_pinned_to_the_lock(locked):
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())
    for requirement in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]:
        name, version = requirement.split("==")
        assert locked[name] == version


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_torch_and_torchvision_come_from_the_same_public_registry(package):
    lock = tomllib.loads((paths.ROOT / "uv.lock").read_text())
    (source,) = [entry["source"] for entry in lock["package"] if entry["name"] == package]
    (numpy_source,) = [entry["source"] for entry in lock["package"] if entry["name"] == "numpy"]
    assert source == numpy_source and set(source) == {"registry"}
