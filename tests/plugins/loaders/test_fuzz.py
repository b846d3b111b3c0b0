"""Random damage: whatever happens to a file, a loader answers with its own error or with tensors, and never with a crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelFileError
from engine.plugin import Checkpoint
from engine_plugins.loaders import pt, safetensors

TENSORS = {"a.weight": torch.arange(24.0).reshape(4, 6), "b.bias": torch.ones(3, dtype=torch.float16), "c": torch.zeros(0)}


def damage(content: bytes, rng: random.Random, front: int) -> bytes:
    """One to four changes: a byte, a cut, a repeated or a removed piece; mostly in the first ``front`` bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(front, len(data)) if rng.random() < 0.8 else len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[max(at, 1) :]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 9)]
            case 3:
                del data[at : at + rng.randrange(1, 9)]
        data = data or bytearray(b"x")
    return bytes(data)


def read(create: Callable[[Checkpoint], object], place: Path) -> None:
    checkpoint = Checkpoint(model="m", path=str(place), config_path=str(place), tokenizer_path=str(place))
    loader = create(checkpoint)
    for info in loader.describe():  # type: ignore[attr-defined]
        assert info.nbytes >= 0
    for _, tensor in loader.tensors():  # type: ignore[attr-defined]
        tensor.float().sum()


@pytest.mark.parametrize("seed", range(6))
def test_safetensors(tmp_path, seed):
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file)
    whole, rng, refused = file.read_bytes(), random.Random(seed), 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(100):
        file.write_bytes(damage(whole, rng, header))
        try:
            read(safetensors.engine_create_loader, tmp_path)
        except ModelFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 80


@pytest.mark.parametrize("seed", range(6))
def test_torch_files(tmp_path, seed):
    file = tmp_path / "model.pt"
    torch.save(TENSORS, file)
    whole, rng, refused = file.read_bytes(), random.Random(seed), 0
    for _ in range(60):
        file.write_bytes(damage(whole, rng, 700))
        try:
            read(pt.engine_create_loader, tmp_path)
        except ModelFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 10
