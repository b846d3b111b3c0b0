"""What the tests of quantization methods share: the plain model, and random numbers that are the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.quant.checkpoints import tiny_llama


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, plain."""
    torch.manual_seed(0)
    return tiny_llama(tmp_path_factory.mktemp("llama"))
