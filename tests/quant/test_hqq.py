"""HQQ checkpoints: the library's own dequantization, and whole models against transformers with the weights made dense."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import ModelFileError
from engine.plugin import LinearShape
from engine_quant._hqq import HQQ
from tests.quant import packers
from tests.quant.checkpoints import (
    change_tensors,
    logits_of,
    logits_of_transformers,
    packed_weights,
    tiny_llama,
    tiny_qwen3_moe,
    worst,
    write_quantized,
)

FIXTURES = load_file(Path(__file__).parent / "data" / "hqq.safetensors")
NAMES = sorted({name.rpartition(".")[0] for name in FIXTURES})


def config(bits=4, group=64, **changes):
    params = {"nbits": bits, "group_size": group, "axis": 1}
    return {"quant_method": "hqq", "quant_config": {"weight_quant_params": params}, "skip_modules": ["lm_head"]} | changes


def outputs_config(bits=4, group=64):
    return config(quant_config={"weight_quant_params": {"nbits": bits, "group_size": group, "axis": 0}})


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_the_library(name):
    bits, group, outputs, inputs, _ = map(int, name.split("."))
    shape = LinearShape("model.layers.0.mlp.down_proj", inputs, outputs)
    form = HQQ(config(bits, group)).linear(shape)
    raw = {suffix: form.unfold(shape, suffix, FIXTURES[f"{name}.{suffix}"]) for suffix in ("W_q", "scale", "zero")}
    packed = form.pack(shape, raw, torch.float32)
    wanted = FIXTURES[f"{name}.dense"]
    assert (packed.dequantize(torch.float32) - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert packed.bits == bits and packed.values.nbytes == outputs * inputs * bits // 8


@pytest.mark.parametrize("how", [{}, {"bits": 8}, {"bits": 3, "group": 32}, {"bits": 2, "group": 32}, {"group": None}], ids=str)
def test_logits(how, llama, tmp_path):
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: packers.hqq(weight, **how), config(**how))
    wanted = logits_of_transformers(llama, dense, tmp_path)
    for ranks in (1, 2):
        assert worst(logits_of(tmp_path / "q", ranks=ranks), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


OUTPUTS = [{}, {"bits": 8}, {"bits": 3}, {"bits": 2, "group": 16}, {"group": None}, {"bits": 1, "group": 32}, {"group": 96}]


@pytest.mark.parametrize("how", OUTPUTS, ids=str)
def test_logits_of_groups_along_the_outputs(how, llama, tmp_path):
    # 96 does not divide the outputs: scales begin anew inside of a row.
    sizes = {"hidden_size": 192, "intermediate_size": 128, "head_dim": 48} if how.get("group") == 96 else {}
    source = tiny_llama(tmp_path / "plain", **sizes) if sizes else llama
    dense = write_quantized(tmp_path / "q", source, lambda _, weight: packers.hqq_outputs(weight, **how), outputs_config(**how))
    wanted = logits_of_transformers(source, dense, tmp_path)
    for ranks in (1, 2):
        assert worst(logits_of(tmp_path / "q", ranks=ranks), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


def test_groups_along_the_outputs_are_held_as_they_are(llama, tmp_path):
    write_quantized(tmp_path / "q", llama, lambda _, weight: packers.hqq_outputs(weight), outputs_config())
    packed = next(weight for name, weight in packed_weights(tmp_path / "q").items() if name.endswith(".mlp.down"))
    assert packed.layout == "shared_scales"
    # 4 bits a weight, two float16 numbers per 64 of them, an integer per output.
    assert packed.nbytes() == packed.outputs * packed.inputs * (4 + 32 / 64) / 8 + 4 * packed.outputs
    made = HQQ(outputs_config())
    assert made.layouts() == ("shared_scales 4",) and made.describe()["group"] == "64 outputs"


@pytest.mark.parametrize("axis", [0, 1])
def test_experts(axis, tmp_path):
    source = tiny_qwen3_moe(tmp_path / "source")
    pack, settings = (packers.hqq, config()) if axis else (packers.hqq_outputs, outputs_config())
    dense = write_quantized(tmp_path / "q", source, lambda _, weight: pack(weight), settings)
    wanted = logits_of_transformers(source, dense, tmp_path)
    for ranks in (1, 2):
        assert worst(logits_of(tmp_path / "q", ranks=ranks), wanted) < 1e-5


OUTPUT_FIXTURES = load_file(Path(__file__).parent / "data" / "hqq_outputs.safetensors")


@pytest.mark.parametrize("name", sorted({name.rpartition(".")[0] for name in OUTPUT_FIXTURES}))
def test_groups_along_the_outputs_are_those_of_the_library(name):
    bits, group, outputs, inputs = map(int, name.split("."))
    shape = LinearShape("model.layers.0.mlp.down_proj", inputs, outputs)
    form = HQQ(outputs_config(bits, group)).linear(shape)
    packed = form.pack(shape, {suffix: OUTPUT_FIXTURES[f"{name}.{suffix}"] for suffix in ("W_q", "scale", "zero")}, torch.float32)
    assert torch.equal(packed.dequantize(torch.float32), OUTPUT_FIXTURES[f"{name}.dense"])


def test_a_configuration_for_each_kind_of_layer(llama, tmp_path):
    kinds = {"self_attn.q_proj": 8, "self_attn.k_proj": 4, "mlp.up_proj": 3, "mlp.gate_proj": 3}
    entry = {kind: {"weight_quant_params": {"nbits": bits, "group_size": 64, "axis": 1}} for kind, bits in kinds.items()}

    def pack(name, weight):
        found = [bits for kind, bits in kinds.items() if name.endswith(kind)]
        return packers.hqq(weight, bits=found[0]) if found else None

    dense = write_quantized(tmp_path / "q", llama, pack, config(quant_config=entry))
    wanted = logits_of_transformers(llama, dense, tmp_path)
    assert len(dense) == 8
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert packed_weights(tmp_path / "q")["head"].layout == "dense"


@pytest.mark.parametrize(
    ("quant_config", "message"),
    [
        ({"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 2}}, "axis is 2; it must be 0"),
        ({"weight_quant_params": {"nbits": 7, "axis": 1}}, "nbits is 7"),
        ({"weight_quant_params": {"nbits": 4, "group_size": 48, "axis": 1}}, "no multiple of 48"),
        ({"weight_quant_params": {"nbits": 4, "axis": 1}, "scale_quant_params": {"nbits": 8}}, "scale_quant_params is"),
        ({}, "quant_config is missing"),
    ],
)
def test_configs_that_cannot_be_read_are_refused(quant_config, message, llama, tmp_path):
    write_quantized(tmp_path / "q", llama, lambda _, weight: packers.hqq(weight), config(quant_config=quant_config))
    with pytest.raises(ModelFileError, match=re.escape(message)):
        logits_of(tmp_path / "q")


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("W_q", lambda t: t[:-1].clone(), "has shape [127, 64]; the quantization_config asks for [128, 64]"),
        ("W_q", lambda t: t.int(), "holds int32; the quantization_config asks for uint8"),
        ("scale", lambda t: t[:-1].clone(), "has shape [255, 1]"),
        ("zero", lambda t: t.int(), "holds int32"),
    ],
)
def test_damage_is_named(suffix, change, message, llama, tmp_path):
    name = f"model.layers.1.self_attn.o_proj.{suffix}"
    write_quantized(tmp_path / "q", llama, lambda _, weight: packers.hqq(weight), config())
    change_tensors(tmp_path / "q", lambda tensors: tensors.update({name: change(tensors[name])}))
    with pytest.raises(ModelFileError, match=re.escape(f"{name}' {message}")):
        logits_of(tmp_path / "q")
