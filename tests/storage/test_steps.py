"""Steps: what changes the key of a result, what does not, and the record that reminds of raising a version.

``python tests/storage/test_steps.py "why results stay"`` renews the record, ``steps.json``.
"""

import ast
import hashlib
import importlib
import json
import pkgutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import ruranet_utils
from ruranet_utils.storage import steps
from ruranet_utils.storage.artefacts import write_atomically
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store

RECORD = Path(__file__).with_name("steps.json")
RENEW = "python tests/storage/test_steps.py 'why'"
# What other modules bring in comes through the settings of a step: fields of the profile, digests of data and weights.
AS_SETTINGS = ("profiles", "published", "data.cohort", "data.splits", "data.decoding", "networks.weights")
WINGS_AS_SETTINGS = ("storage", "statistics", "data.sources")

NET = '''
"""A network."""
import numpy
import torch
from ruranet_utils.shared import SIDE, STEP_OF_ANOTHER

PARTS = ("net", "shared")
STEP = Step("step", 1, PARTS)
DEPTH = 3
HALF = DEPTH / 2

def run(x):
    """What it does."""
    if x < 0:
        raise ValueError(f"expected x >= 0, got {x}")  # a comment
    return x * SIDE
'''
SHARED = "BASE = 8\nSIDE = BASE * 2\nOTHER = 5\nSTEP_OF_ANOTHER, LAST = Step('another', 1, ()), Step('last', 1, ())\n"
STEP = Step("step", 1, ("net",))


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A function that returns where the store keeps a step whose modules have the texts given."""

    def path_of(step=STEP, settings=None, **texts: str) -> Path:
        texts = {"net": NET, "shared": SHARED} | texts
        monkeypatch.setattr(steps, "syntax_tree", lambda module: ast.parse(texts[module]))
        steps._constants.cache_clear()
        fresh = Step(step.name, step.version, step.code)  # its dependencies are read once
        return Store(tmp_path).path(fresh, settings or {"seed": 0})

    monkeypatch.setattr("ruranet_utils.storage.machine.instructions", lambda with_torch=True: "Haswell, AVX2")
    yield path_of
    steps._constants.cache_clear()


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.mark.parametrize(
    "change",
    [
        {"step": Step("other", 1, ("net",))},
        {"step": Step("step", 2, ("net",))},
        {"settings": {"seed": 1}},
        {"settings": {"seed": 0, "more": None}},
        {"net": changed(NET, "DEPTH = 3", "DEPTH = 4")},
        {"net": changed(NET, "DEPTH / 2", "DEPTH / 4")},
        {"net": changed(NET, "DEPTH / 2", "DEPTH / 2\nNEW = 1")},
        {"net": changed(NET, "import numpy", "import numpy, PIL")},
        {"shared": changed(SHARED, "BASE * 2", "BASE * 4")},
        {"shared": changed(SHARED, "BASE = 8", "BASE = 9")},
    ],
    ids=[
        "name",
        "version",
        "setting",
        "another setting",
        "constant",
        "expression",
        "another constant",
        "another library",
        "imported constant",
        "what an imported constant is made of",
    ],
)
def test_what_may_change_a_result_changes_its_key(path, change):
    assert path(**change) != path()


@pytest.mark.parametrize(
    "change",
    [
        {"net": changed(NET, "expected x >= 0, got {x}", "x is {x}: too small")},
        {"net": changed(NET, "What it does.", "What it really does.")},
        {"net": changed(NET, "  # a comment", "  # another one\n\n")},
        {"net": changed(NET, "DEPTH = 3", "DEPTH = (3)")},
        {"net": changed(NET, "1, PARTS", "2, PARTS")},
        {"net": changed(NET, '("net", "shared")', '("net_of_another_name", "shared")')},
        {"shared": changed(SHARED, "OTHER = 5", "OTHER = 6")},
        {"shared": changed(SHARED, "'another', 1", "'another', 2")},
        {"step": Step("step", 1, ("networks.net",)), "networks.net": NET},
        {"net": changed(NET, "utils.shared", "utils.common.sizes"), "common.sizes": SHARED},
        {"settings": dict([("seed", 0)])},
    ],
    ids=[
        "message",
        "docstring",
        "comment",
        "brackets",
        "version written beside it",
        "list of modules",
        "constant of which nothing is made",
        "version of another step",
        "renamed module",
        "moved module of a constant",
        "equal settings",
    ],
)
def test_what_changes_no_result_keeps_its_key(path, change):
    assert path(**change) == path()


def test_the_versions_of_imported_libraries_are_part_of_the_key(path, monkeypatch):
    before = path()
    for library, is_used in (("torch", True), ("numpy", True), ("scikit-learn", False)):
        with monkeypatch.context() as patch:
            patch.setattr(steps, "version", lambda name, raised=library: "99" if name == raised else "1")
            one = path()
            patch.setattr(steps, "version", lambda name: "1")
            assert (one != path()) == is_used, library
    assert path() == before


@pytest.mark.parametrize(
    ("library", "matters", "asks_torch"),
    [("torch", True, True), ("sklearn", True, False), ("skimage", True, False), ("PIL", False, None)],
)
def test_the_instructions_are_part_of_the_key_of_what_computes(path, monkeypatch, library, matters, asks_torch):
    """A step without torch does not load it to ask for its instructions."""
    text, asked = changed(NET, "import torch", f"import {library}"), []
    paths = []
    for kind in ("Haswell, AVX2", "SkylakeX, AVX512"):
        monkeypatch.setattr(
            "ruranet_utils.storage.machine.instructions",
            lambda with_torch=True, kind=kind: asked.append(with_torch) or kind,
        )
        paths.append(path(net=text))
    assert (paths[0] != paths[1]) == matters
    assert set(asked) == ({asks_torch} if matters else set())


# The steps of the package


@cache
def all_steps() -> dict[str, Step]:
    """Every step that a module of the package defines, by name."""
    found: dict[str, Step] = {}
    for module in pkgutil.walk_packages(ruranet_utils.__path__, "ruranet_utils."):
        if "Step(" in Path(find_spec(module.name).origin).read_text(encoding="utf-8"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Step):
                    assert found.setdefault(value.name, value) == value, f"two steps are named {value.name}"
    return found


def digest(step: Step) -> str:
    """SHA-256 of what a step's modules compute: no prose, no message, no import, no step's own line."""
    trees = [ast.unparse(Bare().visit(ast.parse(ast.unparse(steps.syntax_tree(name))))) for name in step.code]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


class Bare(ast.NodeTransformer):
    """Removes what changes no result."""

    def visit_Import(self, node):
        return None

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node):
        self.generic_visit(node)
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else node

    def visit_Assign(self, node):
        calls = (part for part in ast.walk(node.value) if isinstance(part, ast.Call))
        return None if any(ast.unparse(call.func) == "Step" for call in calls) else self.generic_visit(node)

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        node.cause = None
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if ast.unparse(node.func) in ("warnings.warn", "warn"):
            node.args, node.keywords = [], []
        return node


def complaints(found: dict[str, Step], record: dict[str, dict]) -> list[str]:
    """What is wrong with the record, a line for each step."""
    lines = [f"step {name} is gone: renew the record: {RENEW}" for name in record.keys() - found.keys()]
    for name, step in found.items():
        if name not in record:
            lines.append(f"step {name} is new: renew the record: {RENEW}")
            continue
        before, code = record[name], digest(step)
        if step.version < before["version"]:
            lines.append(f"the version of step {name} fell from {before['version']} to {step.version}")
        elif step.version > before["version"]:
            lines.append(f"the version of step {name} rose: renew the record as well: {RENEW}")
        elif code != before["code"]:
            lines.append(f"the code of step {name} changed: raise its version, or say why results stay: {RENEW}")
    return sorted(lines)


def renewed(found: dict[str, Step], record: dict[str, dict], why: str) -> dict[str, dict]:
    """The record as it should be; steps that have not changed keep their reason."""
    new = {}
    for name, step in sorted(found.items()):
        new[name] = {"version": step.version, "code": digest(step), "why": why}
        before = record.get(name, {})
        if all(before.get(key) == new[name][key] for key in ("version", "code")):
            new[name] = before
    return new


def test_who_changes_the_code_of_a_step_raises_its_version_or_says_why_results_stay():
    lines = complaints(all_steps(), json.loads(RECORD.read_text()))
    assert not lines, "\n".join(lines)


def test_the_record_asks_for_what_is_missing_and_keeps_the_reasons_of_the_others(path):
    path()
    one, other = Step("one", 1, ("net",)), Step("other", 1, ("shared",))
    record = renewed({"one": one, "other": other}, {}, "first")
    assert complaints({"one": one, "other": other}, record) == []
    path(net=NET.replace("What it does.", "Prose.").replace("expected x", "x").replace("import numpy\n", ""))
    assert complaints({"one": one, "other": other}, record) == []
    path(net=changed(NET, "x * SIDE", "x + SIDE"))
    (line,) = complaints({"one": one, "other": other}, record)
    assert line.startswith("the code of step one changed: raise its version, or say why results stay: python tests/")
    raised = Step("one", 2, ("net",))
    assert "the version of step one rose: renew the record as well" in complaints({"one": raised}, record)[-1]
    assert "step other is gone" in complaints({"one": one}, record)[0]
    assert "step one is new" in complaints({"one": one}, {})[0]
    again = renewed({"one": raised, "other": other}, record, "second")
    assert [again[name]["why"] for name in ("one", "other")] == ["second", "first"]
    assert complaints({"one": raised, "other": other}, again) == []
    assert "fell from 2 to 1" in complaints({"one": one, "other": other}, again)[0]


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(steps.syntax_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("ruranet_utils.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ruranet_utils":
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if _is_module(name)}
            found |= modules if modules == inner else {*modules, node.module}
    return {name.removeprefix("ruranet_utils.") for name in found}


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


@pytest.mark.parametrize("name", sorted(all_steps()))
def test_no_step_forgets_a_module_that_it_calls(name):
    code = all_steps()[name].code
    for module in code:
        others = imported(module) - {*code, *AS_SETTINGS}
        wings = tuple(f"{wing}." for wing in WINGS_AS_SETTINGS)
        forgotten = sorted(other for other in others if not f"{other}.".startswith(wings))
        assert not forgotten, f"{module} imports {forgotten}, which the code of step {name} does not name"


@pytest.mark.parametrize("name", sorted(all_steps()))
def test_no_constant_of_a_step_hides_another_and_none_is_the_name_of_a_module(name):
    """Constants are told apart by their names alone, so that a module may be renamed."""
    step, seen = all_steps()[name], {}
    for module in step.code:
        for constant, value in steps._constants(module).items():
            assert seen.setdefault(constant, value) == value, f"{constant} has two values in step {name}"
    assert not [module for module in step.code if f"'{module}'" in json.dumps(step.dependencies["constants"])]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record = renewed(all_steps(), json.loads(RECORD.read_text()) if RECORD.exists() else {}, sys.argv[1])
    write_atomically(RECORD, lambda file: file.write_text(json.dumps(record, indent=1) + "\n"))
