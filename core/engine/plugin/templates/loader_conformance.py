"""Holds the loader to its contract, on an archive that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.plugin.testing import LoaderContract
from engine.plugin.testing.checkpoint import tiny_tensors


class TestExample(LoaderContract):
    name = "example"

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        import numpy

        (tmp_path / "checkpoint").mkdir()
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tiny_tensors().items()}
        numpy.savez(tmp_path / "checkpoint" / "model.npz", **arrays)
        return tmp_path / "checkpoint"
