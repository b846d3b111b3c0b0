"""Every scheme of compressed-tensors: written by the library, read by the engine, compared with what the library reads."""

from __future__ import annotations

import json

import pytest
import torch

from engine.errors import ModelFileError
from tests.data import shared
from tests.quant import checkpoints
from tests.quant.checkpoints import logits_of, logits_of_transformers, packed_weights, tiny_llama, worst

pytest.importorskip("compressed_tensors", reason="pip install 'engine[test]' with compressed-tensors")
from tests.quant.compressing import compress, config, group, scheme_of, write

INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
NVFP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
NVFP4["scale_dtype"] = "torch.float8_e4m3fn"
MXFP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
TOKEN8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
TOKENF8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}

#: Weights alone: (weights, format). Odd widths of integers run over the ends of words.
WEIGHTS = {
    "W4A16": (INT4, "pack-quantized"),
    "W4A16-channel": (INT4 | {"strategy": "channel", "group_size": None}, "pack-quantized"),
    "W4A16-asym": (INT4 | {"symmetric": False}, "pack-quantized"),
    "W8A16": (INT8, "pack-quantized"),
    "W8A16-asym": (INT8 | {"symmetric": False}, "pack-quantized"),
    **{f"W{bits}A16": (INT4 | {"num_bits": bits}, "pack-quantized") for bits in (2, 3, 5, 6, 7)},
    **{f"W{bits}A16-asym": (INT4 | {"num_bits": bits, "symmetric": False}, "pack-quantized") for bits in (2, 3, 6)},
    "int8-naive": (INT8, "naive-quantized"),
    "int8-group-asym": (INT8 | {"strategy": "group", "group_size": 64, "symmetric": False}, "naive-quantized"),
    "int8-tensor": (INT8 | {"strategy": "tensor"}, "int-quantized"),
    "int4-bytes": (INT4, "naive-quantized"),
    "FP8-tensor": (FP8 | {"strategy": "tensor"}, "float-quantized"),
    "FP8-channel": (FP8, "naive-quantized"),
    "FP8-group": (FP8 | {"strategy": "group", "group_size": 32}, "float-quantized"),
    "FP8-block": (FP8 | {"strategy": "block", "block_structure": [128, 128]}, "float-quantized"),
    "FP8-block-uneven": (FP8 | {"strategy": "block", "block_structure": [48, 80]}, "float-quantized"),
    "MXFP8": (MXFP4 | {"num_bits": 8}, "mxfp8-quantized"),
    "MXFP6": (MXFP4 | {"num_bits": 6}, "mxfp6-pack-quantized"),
    "MXFP4": (MXFP4, "mxfp4-pack-quantized"),
    "NVFP4A16": (NVFP4, "nvfp4-pack-quantized"),
}  # fmt: skip

#: Activations too: (weights, activations, format).
ROUNDED = {
    "W8A8": (INT8, TOKEN8, "int-quantized"),
    "W8A8-asym": (INT8, TOKEN8 | {"symmetric": False}, "int-quantized"),
    "W8A8-static": (INT8, {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor"}, "int-quantized"),
    "W8A8-static-asym": (INT8 | {"strategy": "tensor"}, {"num_bits": 8, "symmetric": False, "strategy": "tensor"}, "int-quantized"),
    "W4A8": (INT4, TOKEN8, "pack-quantized"),
    "FP8-dynamic": (FP8, TOKENF8, "float-quantized"),
    "FP8-static": (FP8 | {"strategy": "tensor"}, {"num_bits": 8, "type": "float", "strategy": "tensor"}, "float-quantized"),
    "FP8-block": (
        FP8 | {"strategy": "block", "block_structure": [128, 128]}, TOKENF8 | {"strategy": "group", "group_size": 128}, "float-quantized",
    ),
    "NVFP4": (NVFP4, NVFP4 | {"dynamic": "local"}, "nvfp4-pack-quantized"),
    "MXFP4": (MXFP4, MXFP4 | {"dynamic": True}, "mxfp4-pack-quantized"),
    "MXFP8": (MXFP4 | {"num_bits": 8}, MXFP4 | {"num_bits": 8, "dynamic": True}, "mxfp8-quantized"),
}  # fmt: skip

DOWN = "model.layers.1.mlp.down_proj"
#: Products of the network, and the layers of the checkpoint that they are joined from.
PARTS = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "attention.output": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"), "mlp.down": ("mlp.down_proj",),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_the_library(name, source, tmp_path):
    weights, format = WEIGHTS[name]
    dense = write(tmp_path / "q", source, group(weights, None, format))
    packed = packed_weights(tmp_path / "q")
    for layer in (0, 1):
        for name, parts in PARTS.items():
            wanted = torch.cat([dense[f"model.layers.{layer}.{part}.weight"] for part in parts])
            found = packed[f"blocks.{layer}.{name}"]
            assert float((found.dequantize(torch.float32) - wanted).abs().max() / wanted.abs().max()) < 1e-6
            assert found.nbytes() < wanted.nbytes * (0.30 if weights["num_bits"] <= 6 else 0.40)
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


@pytest.mark.parametrize("name", [*WEIGHTS, *ROUNDED])
def test_two_ranks_hold_what_one_does(name, source, tmp_path):
    weights, inputs, format = ROUNDED[name] if name in ROUNDED else (WEIGHTS[name][0], None, WEIGHTS[name][1])
    write(tmp_path / "q", source, group(weights, inputs, format))
    one = logits_of(tmp_path / "q")
    # A rank rounds its own inputs: a scale per token is another one for half of them.
    limit = 1e-5 if inputs is None or inputs.get("dynamic", False) is False else 1e-1
    assert worst(logits_of(tmp_path / "q", ranks=2), one) < limit


@pytest.mark.parametrize("name", ROUNDED)
def test_activations_are_rounded_as_the_library_rounds_them(name, source, tmp_path):
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    weights, inputs, format = ROUNDED[name]
    entry = group(weights, inputs, format)
    write(tmp_path / "q", source, entry)
    packed = packed_weights(tmp_path / "q")["blocks.0.attention.output"]
    args = scheme_of(entry).input_activations
    x = torch.randn(7, packed.inputs, generator=torch.Generator().manual_seed(3)) * 2
    tensors, _ = compress(torch.ones(32, 128), entry)
    outer = tensors.get("input_global_scale")
    if args.dynamic:
        scale, zero = compute_dynamic_scales_and_zp(x[None], args, torch.nn.Module(), global_scale=outer)
    else:
        scale, zero = tensors["input_scale"], tensors.get("input_zero_point")
    wanted = fake_quantize(x[None], scale, zero, args, global_scale=outer)[0]
    got = packed.rounding.round(x)
    # Values half-way between two steps may fall to either side.
    assert float(((got - wanted).abs() > 1e-6).float().mean()) < 0.01
    assert float((got - x).abs().max()) > 1e-3


def test_schemes_by_name_expression_and_class(source, tmp_path):
    """The exact name wins over expressions, these over the class; parts of one product may differ."""
    int8, int4 = group(INT8, None, "pack-quantized", ("re:.*v_proj",)), group(INT4, None, "pack-quantized")
    fp8 = group(FP8, TOKENF8, "float-quantized", ("model.layers.1.mlp.down_proj",))
    ignore = ("lm_head", "re:.*layers.0.*gate_proj$", "model.layers.1.self_attn.o_proj")

    def choose(name, weight):
        if "layers.0.mlp.gate_proj" in name or name == ignore[2]:
            return None
        entry = fp8 if name == "model.layers.1.mlp.down_proj" else int8 if name.endswith("v_proj") else int4
        return compress(weight, entry)

    dense = checkpoints.write_quantized(tmp_path / "q", source, choose, config(int8, int4, fp8, ignore=ignore))
    packed = packed_weights(tmp_path / "q")
    assert [part.bits for part in packed["blocks.0.attention.qkv"].parts] == [4, 4, 8]
    assert [part.layout for part in packed["blocks.0.mlp.gate_up"].parts] == ["dense", "grouped_int"]
    assert packed["blocks.1.mlp.gate_up"].layout == "grouped_int"
    assert packed["blocks.1.mlp.down"].layout == "rounded_inputs"
    assert packed["blocks.1.attention.output"].layout == "dense"
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 3e-2
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 3e-2


@pytest.mark.parametrize("family", ["tiny_mixtral", "tiny_qwen3_moe"])
@pytest.mark.parametrize("name", ["W4A16", "FP8-channel", "NVFP4A16"])
def test_experts(family, name, tmp_path):
    source = getattr(checkpoints, family)(tmp_path / "source")
    weights, format = WEIGHTS[name]
    dense = write(tmp_path / "q", source, group(weights, None, format))
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5


@pytest.mark.parametrize("name", ["ct_W4A16", "ct_W8A8", "ct_FP8_DYNAMIC", "ct_FP8_BLOCK", "ct_NVFP4A16"])
@pytest.mark.parametrize("native", [False, True])
def test_real_checkpoints_go_on_as_the_library_does(name, native):
    """Each next token of the library's greedy text, wherever its lead over the second is more than the noise of bfloat16 there."""
    path = shared(f"checkpoints/{name}")
    rows = json.loads((path / "reference_logits.json").read_text())["rows"]
    texts = tuple(row["prompt_ids"] + row["greedy_ids"][:-1] for row in rows)
    steps = 0
    for row, logits in zip(rows, logits_of(path, texts, native=native, dtype="bfloat16"), strict=True):
        last = logits[len(row["prompt_ids"]) - 1 :].argmax(-1).tolist()
        sure = [(a, b) for a, b, margin in zip(last, row["greedy_ids"], row["margins"], strict=True) if margin > 0.1]
        assert all(a == b for a, b in sure)
        steps += len(sure)
    assert steps > 3


def test_a_quantized_head(source, tmp_path):
    entry = group(INT8, None, "pack-quantized")
    linear = lambda name: checkpoints.is_linear(name) or name == "lm_head.weight"  # noqa: E731
    dense = checkpoints.write_quantized(tmp_path / "q", source, lambda _, w: compress(w, entry), config(entry, ignore=()), linear=linear)
    assert packed_weights(tmp_path / "q")["head"].layout == "grouped_int"
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5


def test_columns_in_the_order_of_their_importance(source, tmp_path):
    """weight_g_idx, as the library wrote it until 0.20: the scale of column k is that of group g_idx[k]."""
    order = {width: torch.randperm(width, generator=torch.Generator().manual_seed(width)) for width in (128, 256)}

    def ordered(_, weight):
        width = weight.shape[1]
        tensors, dense = compress(weight[:, order[width]], group(INT4 | {"symmetric": False}, None, "pack-quantized"))
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

        back = order[width].argsort()
        values = unpack_from_int32(tensors["weight_packed"], 4, weight.shape)[:, back].contiguous()
        index = (torch.arange(width) // 32)[back].to(torch.int32)
        return tensors | {"weight_packed": pack_to_int32(values, 4), "weight_g_idx": index}, dense[:, back]

    entry = group(INT4 | {"symmetric": False, "actorder": "group"}, None, "pack-quantized")
    dense = checkpoints.write_quantized(tmp_path / "q", source, ordered, config(entry))
    assert packed_weights(tmp_path / "q")["blocks.0.mlp.down"].layout == "permuted"
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{DOWN}.weight_scale"), r"down_proj.weight_scale.* missing"),
        (lambda t: t.pop(f"{DOWN}.weight_packed"), r"down_proj.weight_packed.* missing"),
        (lambda t: t.update({f"{DOWN}.weight_packed": t[f"{DOWN}.weight_packed"][:, :5].clone()}), r"weight_packed.*shape \[128, 5\]"),
        (lambda t: t.update({f"{DOWN}.weight_packed": t[f"{DOWN}.weight_packed"].float()}), r"down_proj.weight_packed.*float32.*int32"),
        (lambda t: t.update({f"{DOWN}.weight_scale": t[f"{DOWN}.weight_scale"][:7]}), r"down_proj.weight_scale.*\[7, 8\]"),
        (lambda t: t.update({f"{DOWN}.weight_scale": t[f"{DOWN}.weight_scale"].int()}), r"down_proj.weight_scale.*int32.*floats"),
        (lambda t: t.update({f"{DOWN}.weird": torch.ones(1)}), r"down_proj.weird"),
    ],
)
def test_damaged_tensors_are_named(change, said, source, tmp_path):
    write(tmp_path / "q", source, group(INT4, None, "pack-quantized"))
    checkpoints.change_tensors(tmp_path / "q", change)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config_groups": None}, "config_groups"),
        ({"format": "bytes"}, "format is 'bytes'"),
        ({"ignore": "lm_head"}, "ignore is 'lm_head'"),
        ({"ignore": ["re:(("]}, "no regular expression"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "transform_config"),
        ({"config_groups": {"g": group(INT4 | {"num_bits": "four"}, None, "pack-quantized")}}, "num_bits is 'four'"),
        ({"config_groups": {"g": group(INT4 | {"group_size": None}, None, "pack-quantized")}}, "group_size"),
        ({"config_groups": {"g": group(INT4, TOKEN8 | {"num_bits": 4}, "pack-quantized")}}, "input_activations.num_bits is 4"),
        ({"config_groups": {"g": group(FP8 | {"num_bits": 4}, None, "float-quantized")}}, "none of the schemes"),
        ({"config_groups": {"g": group(FP8, None, "float-quantized") | {"output_activations": TOKEN8}}}, "output_activations"),
    ],
)
def test_configs_that_cannot_be_read_say_why(changes, said, source, tmp_path):
    entry = group(INT4, None, "pack-quantized")
    checkpoints.write_quantized(tmp_path / "q", source, lambda _, w: compress(w, entry), config(entry) | changes)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")
