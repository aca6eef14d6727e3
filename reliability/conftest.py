"""Fixtures shared with the tests of the wings."""

from tests.conftest import journal, phantoms, store, tiny, untrained  # noqa: F401
