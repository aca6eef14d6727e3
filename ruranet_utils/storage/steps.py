"""What an expensive step depends on besides its settings: its version, its constants and its libraries.

The key of a result must change with everything that decides the result, and with nothing else: a key that misses a
constant serves old numbers as new ones; a key made from the source text throws away hours of training over a comma in a
message. A :class:`Step` therefore has an integer version of its code. The rest is read from the code: the values of
the constants that its modules define or import, and the versions of the libraries that they import. Raise the integer
when a code change may change results. No need to remember that: ``tests/storage/test_steps.py`` keeps a digest of
each step's syntax tree without docstrings, messages and imports; when it changes, the test fails until the version is
raised or the record says why results stay. It also fails when a step calls a module that it does not name.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = {  # import name to distribution, of the libraries that compute
    "PIL": "pillow",
    "imagehash": "imagehash",
    "lightning": "lightning",
    "numpy": "numpy",
    "scipy": "scipy",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sklearn_extra": "scikit-learn-extra",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
}


@dataclass(frozen=True)
class Step:
    """A kind of computation whose results the store keeps.

    Parameters
    ----------
    name : str
        Folder in the store.
    version : int
        Raise it when the same settings may give a different result.
    code : tuple of str
        Modules of ``ruranet_utils`` that compute it, such as ``"segmentation.unet"``. They are read, not imported.
    """

    name: str
    version: int
    code: tuple[str, ...]

    @cached_property
    def dependencies(self) -> dict:
        """``version``; ``constants`` by name; ``libraries`` with their versions: everything that is not a setting."""
        constants, libraries = {}, set()
        for module in self.code:
            constants |= _constants(module)
            libraries |= _libraries(module)
        return {
            "version": self.version,
            "constants": constants,
            "libraries": {x: version(x) for x in sorted(libraries)},
        }


@cache
def syntax_tree(module: str) -> ast.Module:
    """The syntax tree of a module of this package, without importing it."""
    return ast.parse(Path(find_spec(f"ruranet_utils.{module}").origin).read_text(encoding="utf-8"))


@cache
def _constants(module: str) -> dict[str, str]:
    """The upper-case names that a module assigns or imports from this package, with their values as source text.

    Steps and the tuples of modules they are made of do not count: renaming a module changes no result.
    """
    tree = syntax_tree(module)
    steps = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Step"]
    of_steps = {name for step in steps for name in _names(step)}
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ruranet_utils."):
            imported = [alias.name for alias in node.names if alias.name.isupper()]
            theirs = _constants(node.module.removeprefix("ruranet_utils.")) if imported else {}
            found |= {name: theirs[name] for name in imported if name in theirs}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and "Step" not in _names(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name for target in targets for name in _names(target)} - of_steps
            used = _names(node.value) & found.keys()
            value = "; ".join([ast.unparse(node.value), *(f"{name} = {found[name]}" for name in sorted(used))])
            found |= {name: value for name in names if name.isupper()}
    return found


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _libraries(module: str) -> set[str]:
    names = set()
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return {LIBRARIES[name] for name in names & LIBRARIES.keys()}
