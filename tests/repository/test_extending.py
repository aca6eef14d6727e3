"""What docs/extending.md says, done to a copy of the project."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from reliability.runs import SMALL, copy_project, finish, pairs, reproduce
from ruranet_utils.storage import paths

MERGED = """
from tests.data.test_cohort import load_cohorts, paper, save_photograph, six_sources  # noqa: F401


def test_the_data_set_is_merged(six_sources, store):  # noqa: F811
    for seed in range(2):
        save_photograph(six_sources / "mine" / f"m{seed}.png", 2000 + seed)
    _, diagnosis = load_cohorts(paper(n_images=16, negatives="assumed"), store)
    audit = diagnosis.audit.set_index("source")
    assert sorted(audit.loc["mine", "image_id"]) == ["m0", "m1"] and (audit.loc["mine", "dropped"] == "").all()
"""


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {text.count(old)} times {old!r}"
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("extended") / "ruranet")
    package = folder / "ruranet_utils"

    edit(package / "profiles.py", '"vgg16", "vgg19")\nMETHODS = (', '"vgg16", "vgg19", "resnet101")\nMETHODS = (')
    edit(package / "profiles.py", "DISPLAY = {\n", 'DISPLAY = {\n    "resnet101": "ResNet101",\n')

    edit(package / "profiles.py", '"agglomerative", "dmh")', '"agglomerative", "dmh", "spectral")')
    edit(package / "profiles.py", "DISPLAY = {\n", 'DISPLAY = {\n    "spectral": "spectral",\n')
    edit(package / "clustering/estimators.py", '"kmeans", "agglomerative")', '"kmeans", "agglomerative", "spectral")')
    edit(
        package / "clustering/estimators.py",
        "import AgglomerativeClustering, KMeans",
        "import AgglomerativeClustering, KMeans, SpectralClustering",
    )
    snippet = (
        (paths.ROOT / "docs/extending.md").read_text().split("```python\n        if self.method")[1].split("```")[0]
    )
    start = '        if self.method == "agglomerative":\n'
    edit(package / "clustering/estimators.py", start, f"        if self.method{snippet}{start}")

    refuge2 = (package / "data/sources/refuge2.py").read_text()
    mine = refuge2.replace('name="refuge2"', 'name="mine"')
    body = "    return [\n        Record(name, SOURCE.name, name, '', 0, SOURCE.label_rule, path, {}, None)\n"
    mine = mine[: mine.index("    top = next(")] + body + "        for name, path in list_images(root).items()\n    ]\n"
    (package / "data/sources/mine.py").write_text(mine)
    registry = package / "data/sources/__init__.py"
    edit(registry, "haemorrhage, idrid, refuge2,", "haemorrhage, idrid, mine, refuge2,")
    edit(registry, "    haemorrhage.SOURCE,\n)", "    haemorrhage.SOURCE,\n    mine.SOURCE,\n)")
    edit(registry, "] = {\n", "] = {\n    mine.SOURCE.name: mine.records,\n")
    return folder


def test_a_backbone_and_a_clustering_method_appear_in_table_4(extended):
    small = {**SMALL, "n_images": 28, "feature_size_px": 64, "dmh_epochs": 5, "extractors": "resnet101"}
    finish(reproduce(extended, ["--only", "04", *pairs(small)]), extended)
    table = pd.read_csv(extended / "figures/synthetic/table_4.csv")
    ours = table[table["accuracy ours"].notna()]
    assert set(ours["backbone"]) == {"resnet101"}
    assert set(ours["method"]) == {"kmedoids", "kmeans", "agglomerative", "dmh", "spectral"}
    assert len(ours) == 3 * 5 and ours["n"].eq(28).all()


def test_a_data_set_is_listed_and_merged(extended):
    (extended / "tests/test_mine.py").write_text(MERGED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_mine.py"]
    done = subprocess.run(command, cwd=extended, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
    listed = "import ruranet_utils.cli as cli; cli.main(['data', '--json'])"
    done = subprocess.run([sys.executable, "-c", listed], cwd=extended, capture_output=True, text=True, check=True)
    assert "mine" in {source["source"] for source in json.loads(done.stdout)}
