"""Docstrings and signatures agree."""

import ast
import re

import pytest

from ruranet_utils.storage import paths

PARAMETERS = re.compile(r"^Parameters\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", re.MULTILINE | re.DOTALL)


def disagreements(source: str) -> list[str]:
    """Functions whose section ``Parameters`` does not list exactly their parameters."""
    found = []
    for node in ast.walk(ast.parse(source)):
        docstring = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if docstring and (section := PARAMETERS.search(docstring)):
            listed = [line.partition(" :")[0] for line in section[1].splitlines() if line and not line.startswith(" ")]
            listed = {name.strip().lstrip("*") for names in listed for name in names.split(",")}
            taken = {node.arg for node in ast.walk(node.args) if isinstance(node, ast.arg)} - {"self", "cls"}
            found += [node.name] * (listed != taken)
    return found


@pytest.mark.parametrize("path", sorted((paths.ROOT / "ruranet_utils").rglob("*.py")), ids=lambda path: path.stem)
def test_every_parameter_is_documented_and_no_other(path):
    assert not disagreements(path.read_text())


FUNCTION = """
def f(a, *b, c=1, **d):
    '''F.

    Parameters
    ----------
    a, *b
        Two.
    {}
    '''
"""


@pytest.mark.parametrize("listed", ["One.\n    **d : str", "c, d, e", "**d : dict"])
def test_a_wrong_docstring_is_seen(listed):
    assert not disagreements(FUNCTION.format("c : int\n        One.\n    **d : str"))
    assert disagreements(FUNCTION.format(listed)) == ["f"]
