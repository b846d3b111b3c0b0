"""Every block type: the weights that the gguf package makes of the same bytes, in each type's layout, whole, in shards and by rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.errors import ConfigError, ModelFileError
from engine.layers.packed_quantized import Codebook, GroupedInteger, RowBlocks
from engine.plugin import Checkpoint, LinearShape, PartFormats
from engine_quant import gguf as method
from tests.gguf.producer import SCALES, dequantized, random_blocks, write_gguf
from tests.quant import checkpoints

pytest.importorskip("gguf")
LAYOUTS = {
    GroupedInteger: {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"}, Codebook: {"IQ4_NL", "IQ4_XS", "MXFP4"},
    RowBlocks: {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"},
}  # fmt: skip
#: Types whose layout multiplies in another order than the package.
ROUNDED = {"IQ4_XS", "Q4_1", "Q5_1"}
AT = Checkpoint("m.gguf", "m.gguf", "", "")


def packed(kind: str, data: torch.Tensor, inputs: int):
    format = method.BlockFormat(kind)
    return format.pack(LinearShape("layer", inputs, len(data)), {kind.lower(): data}, torch.bfloat16)


@pytest.mark.parametrize("kind", sorted(SCALES))
def test_weights_and_layout(kind):
    raw = random_blocks(kind, 37, 512)
    wanted = dequantized(kind, raw)
    found = packed(kind, torch.from_numpy(raw), 512)
    assert kind in LAYOUTS[type(found)]
    made = found.dequantize(torch.float32)
    assert torch.isfinite(wanted).all()
    assert float((made - wanted).abs().max()) <= (1e-6 * float(wanted.abs().max()) if kind in ROUNDED else 0)
    rows = torch.tensor([36, 0, 5, 5])
    assert torch.equal(found.take(rows, torch.float32), made[rows])
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(x @ made.t(), x @ wanted.t(), rtol=1e-5, atol=1e-5 * float((x @ wanted.t()).abs().max()))


def test_all_types_of_the_file_are_known():
    from engine_plugins._gguf.types import TYPES

    of_file = {kind.name: (kind.elements, kind.nbytes) for kind in TYPES.values() if kind.plain is None}
    assert of_file == method.BLOCKS
    assert set(SCALES) == set(method.BLOCKS) == set().union(*LAYOUTS.values())


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "IQ4_NL"])
def test_bytes_in_memory_are_those_of_the_file(kind):
    raw = random_blocks(kind, 64, 1024)
    assert packed(kind, torch.from_numpy(raw), 1024).nbytes() <= raw.nbytes + 64


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q6_K", "IQ3_S"])
def test_a_shard_is_the_shard_of_the_whole(kind, tmp_path):
    place = checkpoints.tiny_llama(tmp_path / "source", hidden_size=512, intermediate_size=1024, head_dim=128)
    meant = write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: kind)
    wanted = checkpoints.logits_of_transformers(place, meant, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(tmp_path / "file" / "m.gguf", ranks=2), wanted) < 1e-5


def test_a_shard_within_a_block_is_refused(tmp_path):
    place = checkpoints.tiny_llama(tmp_path / "source", hidden_size=256, intermediate_size=768, head_dim=64)
    write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: "Q6_K")
    with pytest.raises(ConfigError, match="keeps groups of 256, which a tensor-parallel shard of 384 would cut"):
        checkpoints.logits_of(tmp_path / "file" / "m.gguf", ranks=2)


def test_parts_of_different_types_are_kept_apart():
    quantizer = method.engine_create_quantizer(AT, {"types": {"a.q": "Q4_K", "a.k": "Q8_0"}})
    answer = quantizer.linear(LinearShape("a.qkv", 256, 768, parts=("a.q", "a.k", "a.v"), sizes=(256, 256, 256)))
    assert isinstance(answer, PartFormats)
    assert [None if each is None else each.kind for each in answer.formats] == ["Q4_K", "Q8_0", None]
    assert quantizer.linear(LinearShape("b", 256, 256)) is None
    assert quantizer.describe()["types"] == {"Q4_K": 1, "Q8_0": 1}


def test_what_does_not_fit_is_named(tmp_path):
    data = torch.from_numpy(random_blocks("Q4_K", 4, 512))
    with pytest.raises(ModelFileError, match=r"'layer.q4_k' has uint8 \[4, 288\], but Q4_K of 4 x 256 is uint8 \[4, 144\]"):
        packed("Q4_K", data, 256)
    with pytest.raises(ModelFileError, match="has float32"):
        packed("Q4_K", data.float(), 512)
    with pytest.raises(ModelFileError, match="a has the type 'Q9_K'; known are Q4_0"):
        method.engine_create_quantizer(AT, {"types": {"a": "Q9_K"}})
    with pytest.raises(ModelFileError, match="is not read as a GGUF file"):
        method.engine_create_quantizer(Checkpoint("m", str(tmp_path), "", ""), None)


@pytest.mark.parametrize(("kind", "most"), [("Q4_K", 5e-4), ("Q5_K", 5e-4), ("Q6_K", 4e-3)])
def test_what_a_device_may_take_instead_is_near(kind, most):
    raw = random_blocks(kind, 37, 512)
    found = packed(kind, torch.from_numpy(raw), 512)
    near = found.kind.nearest(found.rows)
    assert (near.group, near.scale.dtype) == (32, torch.float16)
    wanted = found.dequantize(torch.float32)
    assert float((near.dequantize(torch.float32) - wanted).abs().max()) <= most * float(wanted.abs().max())


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0", "TQ2_0", "IQ4_XS"])
def test_an_embedding_that_shares_the_heads_weight(kind, tmp_path):
    """The kernel gives back its rows: one copy of the largest weight, not two."""
    place = checkpoints.tiny_llama(tmp_path / "source", hidden_size=256, intermediate_size=512, head_dim=64, tie_word_embeddings=True)
    meant = write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: kind if name == "token_embd.weight" else "F32")
    model, _ = checkpoints.load_model(tmp_path / "file" / "m.gguf", native=True)
    ids = torch.tensor([3, 159, 3, 0, 31, 32])
    wanted = meant["model.embed_tokens.weight"][ids]
    assert float((model.embedding(ids) - wanted).abs().max()) <= (4e-3 if "K" in kind else 1e-6) * float(wanted.abs().max())
    assert model.embedding.packed is None


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_XS"])
def test_the_device_multiplies_them(kind, tmp_path: Path):
    place = checkpoints.tiny_llama(tmp_path / "source", hidden_size=256, intermediate_size=512, head_dim=64)
    meant = write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: kind)
    wanted = checkpoints.logits_of_transformers(place, meant, tmp_path)
    file = tmp_path / "file" / "m.gguf"
    # the native kernels have a scale per 32 inputs, Q6_K has one per 16: it is rounded to 8 bits there
    assert checkpoints.worst(checkpoints.logits_of(file, native=True), wanted) < (3e-2 if kind == "Q6_K" else 5e-3)
    assert checkpoints.worst(checkpoints.logits_of(file, native=True, dtype="bfloat16"), wanted) < 5e-2
