"""Quark: every scheme from its specification, rules by name and type, what is refused."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelFileError
from tests.quant import floats
from tests.quant.checkpoints import logits_of, logits_of_transformers, packed_weights, tiny_llama, worst, write_quantized
from tests.quant.floats import quark_config, quark_rule

FP8 = quark_rule("fp8_e4m3")
ROWS = quark_rule("fp8_e4m3", "per_channel")
INT8 = quark_rule("int8")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("source"))


def fp8(_, weight, per_output=False):
    values, scale, dense = floats.float8(weight, per_output=per_output)
    return {"weight": values, "weight_scale": scale, "input_scale": torch.tensor(0.02)}, dense


def int8(_, weight):
    tensors, dense = floats.integer8(weight, input_scale=torch.tensor(0.04), input_zero_point=torch.tensor(3))
    return tensors, dense


def static8(_, x):
    return (x / 0.02).clamp(-448, 448).to(torch.float8_e4m3fn).float() * 0.02


def token8(_, x):
    scale = x.abs().amax(-1, keepdim=True) / 448
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def integers(_, x):
    return (((x / 0.04).round() + 3).clamp(-128, 127) - 3) * 0.04


@pytest.mark.parametrize(
    ("weight", "inputs", "pack", "rounding"),
    [
        (FP8, FP8, fp8, static8),
        (ROWS, quark_rule("fp8_e4m3", "per_token", True), lambda n, w: fp8(n, w, True), token8),
        (quark_rule("int8", "per_channel"), INT8 | {"symmetric": False}, int8, integers),
        (FP8, None, fp8, None),
        (quark_rule("fp4", "per_group", group_size=32), None, lambda _, w: floats.mxfp4(w), None),
    ],
    ids=["fp8", "fp8-dynamic", "int8", "fp8-weights", "mxfp4-weights"],
)
def test_schemes(weight, inputs, pack, rounding, source, tmp_path):
    drop = inputs is None or inputs["is_dynamic"]

    def without_inputs(name, plain):
        tensors, dense = pack(name, plain)
        return {key: value for key, value in tensors.items() if not (drop and key.startswith("input"))}, dense

    dense = write_quantized(tmp_path / "q", source, without_inputs, quark_config(weight, inputs))
    wanted = logits_of_transformers(source, dense, tmp_path, rounding=rounding)
    assert worst(logits_of(tmp_path / "q"), wanted) < (1e-5 if rounding is None else 2e-2)
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < (1e-5 if rounding is None else 0.1)
    assert packed_weights(tmp_path / "q")["head"].layout == "dense"


def test_rules_by_name_and_type(source, tmp_path):
    """A name's rule wins over the type's, this over the global one; the cache's projections may round their outputs."""
    def rule(weight, **more):
        return {"weight": weight, "input_tensors": None, "output_tensors": None, "bias": None} | more

    config = quark_config(
        None, None, exclude=["lm_head", "*layers.1.mlp*"], layer_type_quant_config={"Linear": rule(quark_rule("int8", "per_channel"))},
        layer_quant_config={"*down_proj": rule(FP8), "*v_proj": rule(ROWS, output_tensors=FP8)},
    )  # fmt: skip

    def pack(name, weight):
        if "layers.1.mlp" in name:
            return None
        if name.endswith(("down_proj", "v_proj")):
            values, scale, dense = floats.float8(weight, per_output=name.endswith("v_proj"))
            return {"weight": values, "weight_scale": scale}, dense
        return floats.integer8(weight)

    dense = write_quantized(tmp_path / "q", source, pack, config)
    packed = packed_weights(tmp_path / "q")
    assert [part.layout for part in packed["blocks.0.attention.qkv"].parts] == ["grouped_int", "grouped_int", "scaled_float8"]
    assert packed["blocks.0.mlp.down"].layout == "scaled_float8"
    assert packed["blocks.1.mlp.down"].layout == "dense"
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (quark_config(quark_rule("int3"), None), "int3 per_tensor"),
        (quark_config(FP8, INT8), "no scheme that is read"),
        (quark_config(FP8, FP8, global_quant_config=None), "global_quant_config"),
        (quark_config(FP8, FP8, layer_quant_config={"*o_proj": {"weight": FP8, "output_tensors": FP8}}), "output_tensors"),
        (quark_config(FP8, FP8, exclude="lm_head"), "exclude is 'lm_head'"),
    ],
)
def test_what_cannot_be_read_says_why(config, said, source, tmp_path):
    write_quantized(tmp_path / "q", source, fp8, config)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")
