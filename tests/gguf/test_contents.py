"""Damaged contents of GGUF blocks: numbers that are none are refused with file and tensor, all other bytes mean some weights."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from engine.errors import ModelFileError
from tests.gguf.producer import SCALES, write_gguf
from tests.plugins.models.harness import Player, Sequence
from tests.quant import checkpoints

gguf = pytest.importorskip("gguf")
SIZES = {"num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
NAN, INFINITE = 0x7E00, 0xFC00
#: Where IQ1_M has the four parts of its float16, lowest first; MXFP4's scale is one byte.
SCATTERED = (49, 51, 53, 55)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return checkpoints.tiny_llama(tmp_path_factory.mktemp("llama"), **SIZES)


def write(tmp_path, source, kind):
    path = tmp_path / "file" / "m.gguf"
    write_gguf(path, source, "llama", lambda name: kind if ".ffn_" in name or ".attn_" in name else "F32")
    return path


def blocks_of(path, name):
    """The raw blocks of a tensor, to be written to: [blocks, bytes]."""
    found = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    size = gguf.constants.GGML_QUANT_SIZES[found.tensor_type][1]
    return np.memmap(path, np.uint8, "r+", offset=found.data_offset, shape=(found.n_bytes // size, size))


def spoil(kind, block, bits):
    """Make a block's first scale that float16."""
    if kind == "MXFP4":
        block[0] = 255
    elif kind == "IQ1_M":
        for place, shift in zip(SCATTERED, (0, 4, 8, 12), strict=True):
            block[place] = (int(block[place]) & 15) | (bits >> shift & 15) << 4
    else:
        for place in SCALES[kind]:
            block[place : place + 2] = np.array([bits], dtype=np.uint16).view(np.uint8)


def step(path):
    model, context = checkpoints.load_model(path, native=True, dtype="bfloat16")
    return Player(model, context, pages=64, dtype=context.dtype).step([(Sequence([5, 17, 99, 3], 0), 4)])


@pytest.mark.parametrize("bits", [NAN, INFINITE])
@pytest.mark.parametrize("kind", sorted(SCALES))
def test_a_scale_that_is_no_number(kind, bits, source, tmp_path):
    path = write(tmp_path, source, kind)
    assert torch.isfinite(step(path)).all()
    for tensor, layer in (("blk.0.ffn_down.weight", "mlp.down_proj"), ("blk.0.attn_k.weight", "self_attn.k_proj")):
        blocks = blocks_of(path, tensor)
        sound = blocks[-1].copy()
        spoil(kind, blocks[-1], bits)
        blocks.flush()
        began = time.process_time()
        with pytest.raises(ModelFileError) as caught:
            step(path)
        assert time.process_time() - began < 2
        assert f"'model.layers.0.{layer}'" in str(caught.value) and "m.gguf" in str(caught.value)
        assert "nan" in str(caught.value) or "inf" in str(caught.value)
        blocks[-1] = sound
        blocks.flush()


@pytest.mark.parametrize("kind", sorted(SCALES))
def test_any_other_bytes_are_weights(kind, source, tmp_path):
    path = write(tmp_path, source, kind)
    random = np.random.default_rng(0)
    blocks = blocks_of(path, "blk.0.ffn_down.weight")
    kept = {place: blocks[:, place : place + 2].copy() for place in SCALES[kind]}
    for fill in (0, 255, None):
        blocks[:] = random.integers(0, 256, blocks.shape, dtype=np.uint8) if fill is None else fill
        for place, scale in kept.items():
            blocks[:, place : place + 2] = scale
        if kind == "MXFP4":
            blocks[:, 0] = 120
        if kind == "IQ1_M":
            blocks[:, 55] &= 0x0F
        blocks.flush()
        assert torch.isfinite(step(path)).all()
