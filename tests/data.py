"""Where the optional test data is: small real files that some tests compare with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent


def root() -> Path:
    """The folder of the test data: ``$ENGINE_TEST_DATA``, else ``shared/data`` in or beside the repository."""
    if given := os.environ.get("ENGINE_TEST_DATA"):
        return Path(given)
    inside = _REPOSITORY / "shared" / "data"
    return inside if inside.is_dir() else _REPOSITORY.parent / "shared" / "data"


def shared(path: str) -> Path:
    """A file or folder of the test data; skips the test with a reason where it is absent."""
    found = root() / path
    if not found.exists():
        pytest.skip(f"test data {path} is not here (set ENGINE_TEST_DATA)")
    return found


def has_shared(path: str) -> bool:
    """Whether that part of the test data is here, for ``skipif`` marks."""
    return (root() / path).exists()
