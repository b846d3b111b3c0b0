"""bitsandbytes: weights against the library's own dequantization, whole models against transformers, damage, the loader."""

from __future__ import annotations

import json

import pytest
import torch

from engine.errors import ModelFileError
from engine.layers.packed_quantized import Codebook, GroupedInteger
from tests.data import shared
from tests.quant.checkpoints import (
    change_tensors,
    load_model,
    logits_of,
    logits_of_transformers,
    tiny_llama,
    tiny_mixtral,
    worst,
    write_quantized,
)

functional = pytest.importorskip("bitsandbytes.functional")

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "uint8"}
EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def four_bit(weight, kind="nf4", double=False):
    """One layer as the library saves it, and the weight that it dequantizes to."""
    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind)
    tensors = {"weight": packed, **{f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}}
    return tensors, functional.dequantize_4bit(packed, state).float()


def eight_bit(weight):
    scale = weight.abs().amax(1)
    integers = (weight * 127 / scale.unsqueeze(1)).round().to(torch.int8)
    tensors = {"weight": integers, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, integers.float() * scale.unsqueeze(1) / 127


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits(llama, tmp_path, kind, double):
    config = FOUR | {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: four_bit(weight, kind, double), config)
    wanted = logits_of_transformers(llama, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2
    model, _ = load_model(tmp_path / "q")
    fused = [layer.kernel.packed for layer in model.modules() if len(getattr(layer, "parts", ())) == 3]
    assert len(fused) == 2 and all(isinstance(packed, Codebook) and packed.group == 64 for packed in fused)


@pytest.mark.parametrize("ranks", [1, 2])
def test_eight_bits(llama, tmp_path, ranks):
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: eight_bit(weight), EIGHT)
    wanted = logits_of_transformers(llama, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q", ranks=ranks), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=ranks, native=True, dtype="bfloat16"), wanted) < 4e-2


@pytest.mark.parametrize("columns", [128, 48, 31])
def test_blocks_that_run_across_outputs(columns):
    """Against the definition written out: the library's own dequantization on CPUs takes each row to begin a block."""
    from engine.plugin import LinearShape
    from engine_quant._bnb import FourBitFormat

    weight = torch.randn(64, columns)
    tensors, theirs = four_bit(weight)
    codes = torch.stack((tensors["weight"].flatten() >> 4, tensors["weight"].flatten() & 15), 1).flatten().long()
    scales = tensors["weight.absmax"].repeat_interleave(64)[: weight.numel()]
    wanted = (tensors["weight.quant_map"][codes] * scales).view(weight.shape)
    packed = FourBitFormat(None).pack(LinearShape("x", columns, 64), tensors, torch.float32)
    assert torch.equal(packed.dequantize(torch.float32), wanted)
    assert (wanted - weight).abs().max() < 0.16 * weight.abs().max()
    if columns % 64 == 0:
        assert torch.equal(theirs, wanted)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_in_flight_is_what_the_library_makes(kind, double):
    from engine.plugin import LinearShape
    from engine_quant._bnb import InFlightFormat

    weight = torch.randn(128, 256) * torch.rand(128, 1)
    _, wanted = four_bit(weight, kind, double)
    packed = InFlightFormat(4, kind, double).pack(LinearShape("x", 256, 128), {"weight": weight}, torch.float32)
    got = packed.dequantize(torch.float32)
    # Where a value, or a block's scale, lies halfway between two codes the library may choose the other.
    differs = (got - wanted).abs() > 1e-5 * weight.abs().max()
    assert differs.float().mean() < 5e-3
    assert (got - weight).square().mean() <= (wanted - weight).square().mean() * 1.01


def test_the_table_of_scales():
    from engine_quant._bnb_tables import TABLES, scale_table

    torch.testing.assert_close(scale_table(), functional.create_dynamic_map(), rtol=0, atol=1e-7)
    for kind, table in TABLES.items():
        torch.testing.assert_close(torch.tensor(table), functional.get_4bit_type(kind, device="cpu"), rtol=0, atol=1e-7)


def test_plain_checkpoints_are_rounded_while_loading(llama, tmp_path):
    dense = write_quantized(tmp_path / "none", llama, lambda _, weight: ({"weight": weight}, four_bit(weight, "nf4", True)[1]), None)
    wanted = logits_of_transformers(llama, dense, tmp_path)
    method, loader = {"quantization": "bitsandbytes"}, {"load_format": "bitsandbytes"}
    for flags in (method, loader, method | loader):
        assert worst(logits_of(llama, **flags), wanted) < 2e-2
    # A rank rounds what it holds: other blocks, but as good.
    assert worst(logits_of(llama, ranks=2, quantization="bitsandbytes"), wanted) < 0.4


def test_experts_and_skipped_modules(tmp_path):
    source = tiny_mixtral(tmp_path / "plain")
    skipped = "model.layers.1.self_attn"

    def quantize(name, weight):
        return None if name.startswith(skipped) else four_bit(weight)

    config = FOUR | {"bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": [skipped, "lm_head"]}
    dense = write_quantized(tmp_path / "q", source, quantize, config)
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 96, "intermediate_size": 80, "head_dim": 24}], ids=["64", "odd"])
def test_two_ranks_share_blocks(tmp_path, sizes, double):
    """Of 80 inputs a rank has 40, which no block of 64 begins or ends at: scales are kept for the parts of blocks."""
    source = tiny_llama(tmp_path / "plain", **sizes)
    config = FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double}
    write_quantized(tmp_path / "q", source, lambda _, weight: four_bit(weight, "nf4", double), config)
    alone = logits_of(tmp_path / "q")
    assert worst(logits_of(tmp_path / "q", ranks=2), alone) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2, native=True, dtype="bfloat16"), alone) < 4e-2


def test_two_ranks_round_what_a_checkpoint_left_plain(llama, tmp_path):
    """Every rank rounds the whole layer: the same blocks, whatever the number of ranks."""
    def quantize(name, weight):
        return None if name.endswith(("o_proj", "gate_proj")) else four_bit(weight)

    write_quantized(tmp_path / "q", llama, quantize, FOUR | {"bnb_4bit_quant_type": "nf4"})
    assert worst(logits_of(tmp_path / "q", ranks=2), logits_of(tmp_path / "q")) < 1e-5


NAME = "model.layers.0.self_attn.o_proj.weight"
DAMAGE = {
    "absmax": (lambda t: t.update({f"{NAME}.absmax": t[f"{NAME}.absmax"][:-1].clone()}), "absmax"),
    "weight": (lambda t: t.update({NAME: t[NAME][:-1].clone()}), "o_proj.weight"),
    "no state": (lambda t: t.pop(f"{NAME}.quant_state.bitsandbytes__nf4"), "quant_state"),
    "state": (lambda t: t.update({f"{NAME}.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}), "cannot be read"),
    "table": (lambda t: t.update({f"{NAME}.quant_map": torch.zeros(8)}), "quant_map"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_names_the_tensor(llama, tmp_path, case):
    write_quantized(tmp_path / "q", llama, lambda _, weight: four_bit(weight), FOUR | {"bnb_4bit_quant_type": "nf4"})
    change, words = DAMAGE[case]
    change_tensors(tmp_path / "q", change)
    with pytest.raises(ModelFileError, match=words) as found:
        load_model(tmp_path / "q")
    assert "layers.0.self_attn.o_proj" in str(found.value)


def test_settings_that_cannot_be_read_are_refused(llama, tmp_path):
    write_quantized(tmp_path / "q", llama, lambda _, weight: eight_bit(weight), EIGHT | {"load_in_4bit": True})
    with pytest.raises(ModelFileError, match="load_in_8bit"):
        load_model(tmp_path / "q")


@pytest.mark.parametrize("folder", ["q_bnb_nf4", "q_bnb_int8"])
def test_checkpoints_of_the_real_producer(folder):
    path = shared(f"checkpoints/{folder}")
    rows = json.loads((path / "reference_logits.json").read_text())["rows"]
    prompts = tuple(row["prompt_ids"] for row in rows)
    # The library computes in bfloat16, and rounds activations of 8-bit layers to 8 bits.
    most = 1.5e-2 if "nf4" in folder else 4e-2
    for dtype, native in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        got = [logits[-1] for logits in logits_of(path, prompts, dtype=dtype, native=native)]
        for logits, row in zip(got, rows, strict=True):
            assert (logits - torch.tensor(row["last_logits"])).abs().max() < most * (2 if native else 1)
            if row["margins"][0] > 2 * most:
                assert int(logits.argmax()) == row["greedy_ids"][0]
    model, _ = load_model(path)
    kinds = {type(layer.kernel.packed) for layer in model.modules() if getattr(layer, "kernel", None) is not None}
    assert (Codebook if "nf4" in folder else GroupedInteger) in kinds
