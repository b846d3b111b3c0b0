"""ModelOpt: the real library's checkpoints by their scales, every algorithm from its specification, detection, damage."""

from __future__ import annotations

import json

import pytest
import torch

from engine.errors import ModelFileError
from tests.data import shared
from tests.quant import checkpoints, floats
from tests.quant.checkpoints import logits_of, logits_of_transformers, packed_weights, tensors_of, tiny_llama, worst, write_quantized

QKV = [f"model.layers.0.self_attn.{each}_proj" for each in "qkv"]
DOWN = "model.layers.1.mlp.down_proj"
#: Values half-way between two steps may fall to either side, which the layers behind amplify.
CLOSE = 2e-2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("source"))


def static(path):
    """Activations rounded to 8-bit floats by the stored scale."""
    stored = tensors_of(path)

    def rounding(name, x):
        scale = stored[f"{name}.input_scale"]
        return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale

    return rounding


def blocks_of_16(path):
    """Activations rounded to e2m1 with an e4m3 scale per 16 under the stored one."""
    stored = tensors_of(path)

    def rounding(name, x):
        outer = stored[f"{name}.input_scale"]
        blocks = x.unflatten(-1, (-1, 16))
        scale = (blocks.abs().amax(-1, keepdim=True) / 6 / outer).clamp(max=448).to(torch.float8_e4m3fn).float() * outer
        ratio = blocks / torch.where(scale == 0, 1.0, scale)
        code = (ratio.abs().unsqueeze(-1) - floats.E2M1).abs().argmin(-1)
        return (floats.E2M1[code] * torch.where(ratio < 0, -1.0, 1.0) * scale).flatten(-2)

    return rounding


def real_weights(path):
    """The weights that a real checkpoint's tensors stand for, by the definition of its format."""
    dense = {}
    stored = tensors_of(path)
    for name, weight in stored.items():
        scale = stored.get(f"{name.removesuffix('.weight')}.weight_scale")
        if not name.endswith(".weight") or scale is None:
            continue
        if weight.dtype == torch.uint8:
            codes = torch.stack((weight & 15, weight >> 4), -1).flatten(1).long()
            values = floats.E2M1[codes & 7] * torch.where(codes > 7, -1.0, 1.0)
            dense[name] = values * scale.float().repeat_interleave(16, 1) * stored[f"{name}_scale_2"]
        else:
            dense[name] = weight.float() * scale
    return dense


@pytest.mark.parametrize(("name", "rounding"), [("mo_FP8_DEFAULT_CFG", static), ("mo_NVFP4_DEFAULT_CFG", blocks_of_16)])
def test_real_checkpoints(name, rounding, tmp_path):
    path = shared(f"checkpoints/{name}")
    dense = real_weights(path)
    assert len(dense) == 14
    packed = packed_weights(path)
    wanted = torch.cat([dense[f"{each}.weight"] for each in QKV])
    assert torch.allclose(packed["blocks.0.attention.qkv"].dequantize(torch.float32), wanted, rtol=1e-6, atol=1e-9)
    assert packed["head"].layout == "dense"
    plain = shared("checkpoints/tiny256")
    prompts = ([1, 17, 256, 33, 499, 8, 101, 77], [5, 6, 7])
    wanted = logits_of_transformers(plain, dense, tmp_path, prompts, rounding=rounding(path))
    assert worst(logits_of(path, prompts), wanted) < CLOSE
    assert worst(logits_of(path, prompts, native=True), wanted) < CLOSE
    assert worst(logits_of(path, prompts, native=True, dtype="bfloat16"), wanted) < (0.1 if "FP8" in name else 0.4)


def fp8(weight, **how):
    values, scale, dense = floats.float8(weight, **how)
    return {"weight": values, "weight_scale": scale, "input_scale": torch.tensor(0.02)}, dense


def spread(weight):
    scale = torch.empty(-(-weight.shape[0] // 128), 1, weight.shape[1] // 128, 1)
    wide = torch.empty_like(weight)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[2]):
            place = (slice(128 * i, 128 * (i + 1)), slice(128 * j, 128 * (j + 1)))
            scale[i, 0, j, 0] = wide[place] = weight[place].abs().max() / 448
    values = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": scale}, values.float() * wide


def without(name, tensors_and_dense):
    tensors, dense = tensors_and_dense
    return {key: value for key, value in tensors.items() if key != name}, dense


#: Algorithm → writer, and the layout of what the down projection becomes.
ALGORITHMS = {
    "FP8_PB_WO": (spread, "scaled_float8"),
    "W4A16_NVFP4": (lambda w: without("input_scale", floats.nvfp4(w)), "codebook"),
    "W4A16_AWQ": (floats.nibble_rows, "grouped_int"),
    "W8A16": (floats.integer8, "grouped_int"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_alone(algorithm, source, tmp_path):
    pack, layout = ALGORITHMS[algorithm]
    dense = write_quantized(tmp_path / "q", source, lambda _, w: pack(w), floats.modelopt_config(algorithm, group_size=64))
    assert packed_weights(tmp_path / "q")["blocks.1.mlp.down"].layout == layout
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


def test_a_scale_per_output_and_token(source, tmp_path):
    def pack(_, weight):
        values, scale, dense = floats.float8(weight, per_output=True)
        return {"weight": values, "weight_scale": scale}, dense

    def rounding(_, x):
        scale = x.abs().amax(-1, keepdim=True) / 448
        return (x / scale).to(torch.float8_e4m3fn).float() * scale

    dense = write_quantized(tmp_path / "q", source, pack, floats.modelopt_config("FP8_PER_CHANNEL_PER_TOKEN"))
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path, rounding=rounding)) < CLOSE


def test_smoothed_activations_are_multiplied_first(source, tmp_path):
    """W8A8_SQ_PER_CHANNEL: pre_quant_scale, then rounding to 8-bit integers; factors may differ between parts."""
    generator = torch.Generator().manual_seed(5)

    def pack(name, weight):
        factor = torch.rand(weight.shape[1], generator=generator) + 0.5
        tensors, dense = floats.integer8(weight / factor, pre_quant_scale=factor, input_scale=torch.tensor(0.04))
        return tensors, dense

    dense = write_quantized(tmp_path / "q", source, pack, floats.modelopt_config("W8A8_SQ_PER_CHANNEL"))
    stored = tensors_of(tmp_path / "q")

    def rounding(name, x):
        smooth = x * stored[f"{name}.pre_quant_scale"]
        return (smooth / 0.04).round().clamp(-128, 127) * 0.04

    wanted = logits_of_transformers(source, dense, tmp_path, rounding=rounding)
    assert [part.layout for part in packed_weights(tmp_path / "q")["blocks.0.attention.qkv"].parts] == ["scaled_inputs"] * 3
    assert worst(logits_of(tmp_path / "q"), wanted) < CLOSE
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < CLOSE


@pytest.mark.parametrize("algorithm", ["FP8", "NVFP4"])
def test_the_side_file_alone_says_the_method(algorithm, source, tmp_path):
    excluded = ["lm_head", "model.layers.0.self_attn*"]
    inner = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": excluded}
    side = {"producer": {"name": "modelopt", "version": "0.47"}, "quantization": inner}

    def pack(name, weight):
        if "layers.0.self_attn" in name:
            return None
        tensors, dense = fp8(weight) if algorithm == "FP8" else floats.nvfp4(weight)
        scale = {"k_proj": "k_scale", "v_proj": "v_scale"}.get(name.rpartition(".")[2])
        return ({**tensors, scale: torch.tensor(0.5)} if scale else tensors), dense

    write_quantized(tmp_path / "q", source, pack, None, side_files={"hf_quant_config.json": side})
    packed = packed_weights(tmp_path / "q")
    assert packed["blocks.0.attention.qkv"].layout == "dense"
    assert packed["blocks.0.mlp.down"].layout == "rounded_inputs"
    name = "modelopt" if algorithm == "FP8" else "nvfp4"
    assert worst(logits_of(tmp_path / "q", quantization=name), logits_of(tmp_path / "q")) == 0
    with pytest.raises(ModelFileError, match="gptq reads"):
        logits_of(tmp_path / "q", quantization="gptq")


def test_mixed_precision(source, tmp_path):
    layers = {}

    def pack(name, weight):
        layers[name] = {"quant_algo": "NVFP4" if "mlp" in name else "FP8"}
        return floats.nvfp4(weight) if "mlp" in name else fp8(weight)

    config = floats.modelopt_config("MIXED_PRECISION")
    write_quantized(tmp_path / "q", source, pack, config)
    side = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}}
    (tmp_path / "q" / "hf_quant_config.json").write_text(json.dumps(side))
    packed = packed_weights(tmp_path / "q")
    assert packed["blocks.0.attention.output"].inner.layout == "scaled_float8"
    assert packed["blocks.0.mlp.down"].inner.layout == "codebook"


def test_experts_and_their_router(tmp_path):
    source = checkpoints.tiny_qwen3_moe(tmp_path / "source")
    dense = write_quantized(
        tmp_path / "q", source, lambda _, w: without("input_scale", floats.nvfp4(w)), floats.modelopt_config("W4A16_NVFP4")
    )
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{DOWN}.weight_scale_2"), r"down_proj.weight_scale_2.* missing"),
        (lambda t: t.pop(f"{DOWN}.input_scale"), r"down_proj.input_scale.* missing"),
        (lambda t: t.update({f"{DOWN}.weight": t[f"{DOWN}.weight"].view(torch.int8)}), r"down_proj.weight.*int8.*uint8"),
        (lambda t: t.update({f"{DOWN}.weight_scale": t[f"{DOWN}.weight_scale"].float().to(torch.int32)}), r"weight_scale.*int32.*floats"),
        (lambda t: t.update({f"{DOWN}.input_scale": torch.tensor(0.0)}), r"down_proj.input_scale.*above 0"),
    ],
)
def test_damaged_tensors_are_named(change, said, source, tmp_path):
    write_quantized(tmp_path / "q", source, lambda _, w: floats.nvfp4(w), floats.modelopt_config("NVFP4"))
    checkpoints.change_tensors(tmp_path / "q", change)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_algo": "INT2"}, "quant_algo is 'INT2'"),
        ({"quant_algo": "MIXED_PRECISION"}, "hf_quant_config.json"),
        ({"producer": {"name": "other"}}, "name is 'other'"),
        ({"ignore": 5}, "ignore is 5"),
    ],
)
def test_configs_that_cannot_be_read_say_why(config, said, source, tmp_path):
    write_quantized(tmp_path / "q", source, lambda _, w: fp8(w), floats.modelopt_config("FP8") | config)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q", quantization="modelopt")
