"""Marlin, Marlin-24 and QQQ checkpoints: whole models against transformers with the weights made dense; activations of QQQ are rounded."""

from __future__ import annotations

import re

import pytest
import torch

from engine.errors import ConfigError, ModelFileError
from engine.layers.packed_quantized import RoundedInputs
from engine.plugin import LinearShape
from engine_quant._marlin import unpermute_positions
from tests.quant import tiles
from tests.quant.checkpoints import (
    change_tensors,
    logits_of,
    logits_of_transformers,
    packed_weights,
    tiny_llama,
    tiny_mixtral,
    worst,
    write_quantized,
)

#: Every layer's sizes are multiples of 128, of the halves of two ranks as well.
SIZES = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
FORMATS = {
    "marlin": (lambda weight: tiles.marlin(weight), CONFIG | {"checkpoint_format": "marlin"}),
    "marlin, one group": (lambda weight: tiles.marlin(weight, -1), CONFIG | {"is_marlin_format": True, "group_size": -1}),
    "24": (lambda weight: tiles.marlin_24(weight), CONFIG | {"checkpoint_format": "marlin_24"}),
    "24, one group": (lambda weight: tiles.marlin_24(weight, 4, -1), CONFIG | {"checkpoint_format": "marlin_24", "group_size": -1}),
    "24 of 8 bits": (lambda weight: tiles.marlin_24(weight, 8), CONFIG | {"checkpoint_format": "marlin_24", "bits": 8}),
    "qqq": (lambda weight: tiles.qqq(weight), {"quant_method": "qqq", "wbits": 4, "group_size": 128}),
    "qqq, one group": (lambda weight: tiles.qqq(weight, -1), {"quant_method": "qqq", "wbits": 4, "group_size": -1}),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"), **SIZES)


def write(name, path, source, changes=None):
    pack, config = FORMATS[name]
    return write_quantized(path, source, lambda _, weight: pack(weight), config | (changes or {}))


@pytest.mark.parametrize("name", FORMATS)
def test_logits(name, llama, tmp_path):
    changes = {"num_key_value_heads": 4} if name.startswith("24") else {}
    source = tiny_llama(tmp_path / "source", **SIZES | changes) if changes else llama
    dense = write(name, tmp_path / "q", source)
    if name.startswith("qqq"):
        held = packed_weights(tmp_path / "q")
        assert sum(isinstance(packed, RoundedInputs) for packed in held.values()) == 8
        compare_weights(held, dense)
        return
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


def compare_weights(held, dense):
    for name, packed in held.items():
        if name == "head":
            continue
        number = name.split(".")[1]
        parts = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
                 "down": ("mlp.down_proj",), "output": ("self_attn.o_proj",)}  # fmt: skip
        kind = next(kind for kind in parts if name.rpartition(".")[2].startswith(kind[:4]) or kind in name)
        wanted = torch.cat([dense[f"model.layers.{number}.{part}.weight"] for part in parts[kind]])
        torch.testing.assert_close(packed.dequantize(torch.float32), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["qqq", "qqq, one group"])
def test_qqq_rounds_activations_per_token(name, llama, tmp_path):
    dense = write(name, tmp_path / "q", llama)
    got = logits_of(tmp_path / "q")
    wanted = logits_of_transformers(llama, dense, tmp_path)
    assert 1e-4 < worst(got, wanted) < 5e-2
    assert worst(logits_of(tmp_path / "q", ranks=2), got) < 5e-2
    packed = next(packed for packed in packed_weights(tmp_path / "q").values() if isinstance(packed, RoundedInputs))
    x = torch.randn(3, packed.inputs)
    scale = x.abs().amax(-1, keepdim=True) / 127
    torch.testing.assert_close(packed.rounding.round(x), (x / scale).round() * scale)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_sparse_order_is_that_of_compressed_tensors(bits):
    library = pytest.importorskip("compressed_tensors.utils.permutations_24")
    order, grouped, _ = library.get_permutations_24(bits)
    assert order.tolist() == tiles.order_of("24", bits)
    assert list(grouped) == tiles.GROUPED_24


def test_positions_are_those_of_compressed_tensors():
    library = pytest.importorskip("compressed_tensors.utils.semi_structured_conversions")
    weight = torch.randn(128, 256)
    dense = torch.zeros(128, 64, 4)
    keep = weight.view(128, 64, 4).abs().argsort(-1)[..., 2:]
    dense = dense.scatter(2, keep, weight.view(128, 64, 4).gather(2, keep)).view(128, 256)
    kept, meta = library.sparse_semi_structured_from_dense_cutlass(dense.half())
    places = unpermute_positions(meta.view(256 // 32, -1), LinearShape("layer", 256, 128)).long()
    places += torch.arange(128) // 2 * 4
    assert torch.equal(torch.zeros(128, 256).half().scatter(1, places, kept), dense.half())


def test_experts_in_marlins_order(tmp_path):
    source = tiny_mixtral(tmp_path / "source", **SIZES)
    dense = write("marlin", tmp_path / "q", source)
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5


def test_the_flag_may_say_gptq_but_no_other_method(llama, tmp_path):
    dense = write("marlin", tmp_path / "q", llama)
    wanted = logits_of_transformers(llama, dense, tmp_path)
    for method in (None, "gptq", "marlin"):
        assert worst(logits_of(tmp_path / "q", quantization=method), wanted) < 1e-5
    with pytest.raises(ConfigError, match="--quantization awq contradicts the checkpoint: .* says gptq"):
        logits_of(tmp_path / "q", quantization="awq")


def test_damage_is_named(llama, tmp_path):
    name = "model.layers.1.mlp.down_proj"
    for suffix, change, message in (
        ("B", lambda t: t[:, :-1].clone(), f"{name}.B' has shape [16, 511]"), ("B", lambda t: t.short(), f"{name}.B' holds int16"),
        ("s", lambda t: t[:-1].clone(), f"{name}.s' has shape [1, 256]"),
    ):  # fmt: skip
        write("marlin", tmp_path / "q", llama)
        change_tensors(tmp_path / "q", lambda t, s=suffix, c=change: t.update({f"{name}.{s}": c(t[f"{name}.{s}"])}))
        with pytest.raises(ModelFileError, match=re.escape(message)):
            logits_of(tmp_path / "q")
    write("24", tmp_path / "q", tiny_llama(tmp_path / "source", **SIZES | {"num_key_value_heads": 4}))
    change_tensors(tmp_path / "q", lambda t: t.update({f"{name}.B_meta": torch.zeros_like(t[f"{name}.B_meta"])}))
    with pytest.raises(ModelFileError, match=r"1\.mlp\.down_proj.*twice"):
        logits_of(tmp_path / "q")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("marlin", {"bits": 8}, "bits is 8; it must be 4"), ("marlin", {"group_size": 64}, "group_size is 64; it must be -1 or 128"),
        ("24", {"bits": 3}, "bits is 3; it must be 4 or 8"), ("24", {"desc_act": True}, "desc_act is True; it must be false"),
        ("qqq", {"wbits": 8}, "wbits is 8; it must be 4"),
    ],
)  # fmt: skip
def test_configs_are_checked(name, changes, message, llama, tmp_path):
    source = tiny_llama(tmp_path / "source", **SIZES | {"num_key_value_heads": 4})
    write(name, tmp_path / "q", source, changes)
    with pytest.raises(ModelFileError, match=message):
        logits_of(tmp_path / "q")


def test_layers_that_no_tile_fits_are_refused(tmp_path):
    source = tiny_llama(tmp_path / "source", **SIZES | {"intermediate_size": 192})
    write_quantized(tmp_path / "q", source, lambda _, weight: ({"B": torch.zeros(1)}, weight), FORMATS["marlin"][1])
    with pytest.raises(ModelFileError, match=r"mlp\.down_proj: 192 inputs are no multiple of 128"):
        logits_of(tmp_path / "q")
