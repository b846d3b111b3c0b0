"""8-bit floats: checkpoints of the methods fp8 and fbgemm_fp8, and plain checkpoints rounded while loading by fp8 and ptpc_fp8."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelFileError
from engine.layers.rounding import ActivationRounding
from tests.quant import checkpoints
from tests.quant.checkpoints import logits_of, logits_of_transformers, packed_weights, tiny_llama, worst, write_quantized

TOP = 448.0
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("source"))


def tensor(weight):
    """One scale; it differs between parts of a fused layer as their weights do."""
    scale = weight.abs().max() / TOP
    values = (weight / scale).to(torch.float8_e4m3fn)
    return values, scale, values.float() * scale


def rows(weight):
    scale = weight.abs().amax(1, keepdim=True) / TOP
    values = (weight / scale).to(torch.float8_e4m3fn)
    return values, scale, values.float() * scale


def blocks(weight, height, width):
    """As the format says: a scale per block, the last ones smaller."""
    scale = torch.empty(-(-weight.shape[0] // height), -(-weight.shape[1] // width))
    values, dense = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    for i in range(len(scale)):
        for j in range(scale.shape[1]):
            place = (slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width))
            scale[i, j] = weight[place].abs().max() / TOP
            values[place] = (weight[place] / scale[i, j]).to(torch.float8_e4m3fn)
            dense[place] = values[place].float() * scale[i, j]
    return values, scale, dense


def per_token(_, x):
    """Activations as the method rounds them: one scale per row."""
    scale = x.abs().amax(-1, keepdim=True) / TOP
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def per_group(width):
    """One scale per row and that many inputs."""

    def rounding(_, x):
        pieces = [per_token(_, piece) for piece in x.split(width, -1)]
        return torch.cat(pieces, -1)

    return rounding


#: A value half-way between two 8-bit floats may fall to either side, which the layers behind it amplify.
CLOSE = 2e-2


def fp8(path, source, config=None, block=None, extra=None, name="weight_scale", **more):
    def linear(_, weight):
        values, scale, dense = tensor(weight) if block is None else blocks(weight, *block)
        return {"weight": values, name: scale, **(extra or {})}, dense

    own = {"quant_method": "fp8", "activation_scheme": "dynamic"} | ({"weight_block_size": list(block)} if block else {})
    return write_quantized(path, source, linear, own | (config or {}), **more)


def check_weights(path, dense, layout):
    packed = packed_weights(path)
    parts = {
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "attention.output": ("self_attn.o_proj",),
        "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"), "mlp.down": ("mlp.down_proj",),
    }  # fmt: skip
    for layer in (0, 1):
        for name, sources in parts.items():
            wanted = torch.cat([dense[f"model.layers.{layer}.{part}.weight"] for part in sources])
            found = packed[f"blocks.{layer}.{name}"]
            assert torch.allclose(found.dequantize(torch.float32), wanted, rtol=1e-6, atol=0)
            assert found.layout == layout
            assert found.nbytes() < 0.3 * wanted.nbytes
    assert packed["head"].layout == "dense"
    return packed


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_a_scale_per_layer_stays_that_of_each_part(name, source, tmp_path):
    dense = fp8(tmp_path / "q", source, name=name)
    packed = check_weights(tmp_path / "q", dense, "rounded_inputs")
    assert packed["blocks.0.attention.qkv"].inner.rows == 1
    assert packed["blocks.0.mlp.down"].inner.scale.numel() == 1
    wanted = logits_of_transformers(source, dense, tmp_path, rounding=per_token)
    assert worst(logits_of(tmp_path / "q"), wanted) < CLOSE
    assert worst(logits_of(tmp_path / "q", native=True), wanted) < CLOSE
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 0.1
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 0.1
    assert worst(wanted, logits_of_transformers(source, dense, tmp_path)) > 2 * CLOSE


def test_static_activations_are_rounded_by_the_scale_of_each_part(source, tmp_path):
    scales = iter(torch.arange(1, 100) / 500)

    def linear(name, weight):
        values, scale, dense = tensor(weight)
        # Keys and queries with scales of their own, the rest of a fused layer with the same.
        own = next(scales) if name.endswith(("q_proj", "k_proj")) else torch.tensor(0.05)
        return {"weight": values, "weight_scale": scale, "input_scale": own}, dense

    dense = write_quantized(tmp_path / "q", source, linear, {"quant_method": "fp8", "activation_scheme": "static"})
    packed = packed_weights(tmp_path / "q")
    stored = checkpoints.tensors_of(tmp_path / "q")
    fused = packed["blocks.1.attention.qkv"]
    assert [float(part.rounding.scale) for part in fused.parts] == [
        float(stored[f"model.layers.1.self_attn.{each}_proj.input_scale"]) for each in "qkv"
    ]
    wanted = torch.cat([dense[f"model.layers.1.self_attn.{each}_proj.weight"] for each in "qkv"])
    assert torch.allclose(fused.dequantize(torch.float32), wanted, rtol=1e-6, atol=0)
    assert packed["blocks.1.mlp.gate_up"].layout == "rounded_inputs"

    def static(name, x):
        scale = stored[f"{name}.input_scale"]
        return (x / scale).clamp(-TOP, TOP).to(torch.float8_e4m3fn).float() * scale

    one = logits_of(tmp_path / "q")
    assert worst(one, logits_of_transformers(source, dense, tmp_path, rounding=static)) < CLOSE
    assert worst(logits_of(tmp_path / "q", ranks=2), one) < CLOSE


@pytest.mark.parametrize("block", [(128, 128), (32, 64), (48, 80)])
def test_blocks(block, source, tmp_path):
    dense = fp8(tmp_path / "q", source, block=block, name="weight_scale_inv")
    packed = check_weights(tmp_path / "q", dense, "rounded_inputs")
    assert packed["blocks.0.mlp.down"].rounding.group == block[1]
    wanted = logits_of_transformers(source, dense, tmp_path, rounding=per_group(block[1]))
    assert worst(logits_of(tmp_path / "q"), wanted) < CLOSE


def test_shards_that_cut_blocks(source, tmp_path):
    """64 keys of a block of 128 rows each on one of two ranks."""
    dense = fp8(tmp_path / "q", source, block=(128, 128), name="weight_scale_inv")
    wanted = logits_of_transformers(source, dense, tmp_path, rounding=per_group(128))
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 0.1


def test_scales_that_are_powers_of_two(source, tmp_path):
    def linear(_, weight):
        values, scale, _ = blocks(weight, 128, 128)
        powers = torch.exp2(scale.log2().ceil())
        wide = powers.repeat_interleave(128, 0)[: len(weight)].repeat_interleave(128, 1)[:, : weight.shape[1]]
        values = (weight / wide).to(torch.float8_e4m3fn)
        return {"weight": values, "weight_scale_inv": powers.to(torch.float8_e8m0fnu)}, values.float() * wide

    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}
    dense = write_quantized(tmp_path / "q", source, linear, config)
    packed = check_weights(tmp_path / "q", dense, "rounded_inputs")
    assert packed["blocks.0.mlp.down"].rounding.scale_dtype == torch.float8_e8m0fnu


def test_transformers_reads_the_same(source, tmp_path):
    """Fine-grained 8-bit floats as transformers dequantizes them."""
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    dense = fp8(tmp_path / "q", source, block=(128, 128), name="weight_scale_inv", config={"modules_to_not_convert": ["lm_head"]})
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "q", dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    for name, weight in dense.items():
        assert torch.allclose(model.get_parameter(name).float(), weight, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("key", ["ignored_layers", "modules_to_not_convert"])
def test_ignored_layers_stay_as_they_are(key, source, tmp_path):
    ignored = ["model.layers.0.self_attn.q_proj", "lm_head", "model.layers.1.mlp"]

    def linear(name, weight):
        if any(name == each or name.startswith(f"{each}.") for each in ignored):
            return None
        values, scale, dense = tensor(weight)
        return {"weight": values, "weight_scale": scale}, dense

    dense = write_quantized(tmp_path / "q", source, linear, {"quant_method": "fp8", key: ignored})
    packed = packed_weights(tmp_path / "q")
    assert [part.layout for part in packed["blocks.0.attention.qkv"].parts] == ["dense", "rounded_inputs", "rounded_inputs"]
    assert packed["blocks.1.mlp.gate_up"].layout == "dense"
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path, rounding=per_token)) < CLOSE


@pytest.mark.parametrize("method", ["fp8", "ptpc_fp8"])
@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen3_moe"])
def test_plain_weights_are_rounded_while_loading(method, family, tmp_path):
    source = getattr(checkpoints, family)(tmp_path / "source")
    dense = {}
    for name, weight in checkpoints.tensors_of(source).items():
        if checkpoints.is_linear(name):
            dense[name] = (tensor if method == "fp8" else rows)(weight)[2]
    packed = packed_weights(source, quantization=method)
    assert packed["head"].layout == "dense"
    found = packed["blocks.0.attention.qkv"].dequantize(torch.float32)
    parts = [dense[f"model.layers.0.self_attn.{each}_proj.weight"] for each in "qkv"]
    assert torch.allclose(found, torch.cat(parts), rtol=1e-6, atol=0)
    if family == "tiny_qwen3_moe":
        assert packed["blocks.0.mlp.router"].layout == "dense"
        experts = packed["blocks.1.mlp.down.3"].dequantize(torch.float32)
        assert torch.allclose(experts, dense["model.layers.1.mlp.experts.3.down_proj.weight"], rtol=1e-6, atol=0)
        return
    wanted = logits_of_transformers(source, dense, tmp_path, rounding=per_token)
    assert worst(logits_of(source, quantization=method), wanted) < CLOSE
    assert worst(logits_of(source, quantization=method, ranks=2), wanted) < 0.15


def test_experts(tmp_path):
    source = checkpoints.tiny_mixtral(tmp_path / "source")
    dense = fp8(tmp_path / "q", source, block=(64, 64), name="weight_scale_inv")
    assert len(dense) == 2 * (4 + 4 * 3)
    packed = packed_weights(tmp_path / "q")
    for number in range(4):
        name = f"model.layers.1.block_sparse_moe.experts.{number}"
        wanted = torch.cat([dense[f"{name}.{each}.weight"] for each in ("w1", "w3")])
        assert torch.allclose(packed[f"blocks.1.mlp.gate_up.{number}"].dequantize(torch.float32), wanted, rtol=1e-6, atol=0)
    # Which experts a token goes to may turn on a rounding.
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 0.5


def test_fbgemm(source, tmp_path):
    def linear(name, weight):
        if name.endswith("layers.0.mlp.down_proj"):
            return None
        values, scale, dense = rows(weight)
        return {"weight": values, "weight_scale": scale}, dense

    skipped = ["lm_head", "model.layers.0.mlp.down_proj"]
    config = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1.5, "modules_to_not_convert": skipped}
    dense = write_quantized(tmp_path / "q", source, linear, config)
    packed = packed_weights(tmp_path / "q")
    assert packed["blocks.0.mlp.down"].layout == "dense"
    fused = packed["blocks.1.mlp.gate_up"]
    wanted = torch.cat([dense[f"model.layers.1.mlp.{each}_proj.weight"] for each in ("gate", "up")])
    assert torch.allclose(fused.dequantize(torch.float32), wanted, rtol=1e-6, atol=0)
    assert fused.rounding.upper == 1.5
    x = torch.tensor([[3.0, 1.0, -0.4]])
    capped = ActivationRounding("float8_e4m3fn", upper=1.5).round(x)
    assert torch.allclose(capped, (x.clamp(-1.5, 1.5) / (1.5 / TOP)).to(torch.float8_e4m3fn).float() * (1.5 / TOP))

    def cap(_, x):
        scale = x.abs().amax(-1, keepdim=True).clamp(max=1.5) / TOP
        return (x / scale).clamp(-TOP, TOP).to(torch.float8_e4m3fn).float() * scale

    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path, rounding=cap)) < CLOSE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{DOWN}.weight_scale"), r"down_proj.weight_scale.* missing"),
        (lambda t: t.update({f"{DOWN}.weight": t[f"{DOWN}.weight"].view(torch.int8)}), r"down_proj.weight.*int8.*float8_e4m3fn"),
        (lambda t: t.update({f"{DOWN}.weight_scale": torch.ones(3)}), r"down_proj.weight_scale.*\[3\].*one number"),
        (lambda t: t.update({f"{DOWN}.weight_scale": torch.tensor(float("nan"))}), r"down_proj.weight_scale.*finite"),
        (lambda t: t.update({f"{DOWN}.weight": t[f"{DOWN}.weight"].view(torch.uint8)[:9].view(torch.float8_e4m3fn)}), r"\[9, 256\].*128"),
        (lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": torch.ones(64, 128)}), r"self_attn"),
    ],
)
def test_damaged_tensors_are_named(change, said, source, tmp_path):
    fp8(tmp_path / "q", source)
    checkpoints.change_tensors(tmp_path / "q", change)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"activation_scheme": "sometimes"}, "activation_scheme is 'sometimes'"),
        ({"weight_block_size": [128]}, "weight_block_size"),
        ({"weight_block_size": [128, 128], "activation_scheme": "static"}, "weight_block_size excludes"),
        ({"ignored_layers": 3}, "ignored_layers is 3"),
    ],
)
def test_configs_that_cannot_be_read_say_why(config, said, source, tmp_path):
    fp8(tmp_path / "q", source, config=config)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")
