"""Methods that round plain weights while loading: against their formulas written out, on one rank, on two, with experts."""

from __future__ import annotations

import json

import pytest
import torch

from engine.errors import ConfigError, ModelFileError
from tests.quant.checkpoints import is_linear, load_model, logits_of, logits_of_transformers, tensors_of, tiny_qwen3_moe, worst


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return tiny_qwen3_moe(tmp_path_factory.mktemp("experts"))


def rows(weight, least=1e-12, lowest=-127):
    scale = weight.abs().amax(1, keepdim=True).clamp(min=least) / 127
    return (weight / scale).round().clamp(lowest, 127) * scale


def float8_rows(weight):
    scale = weight.abs().amax(1, keepdim=True) / 448
    return (weight / scale).to(torch.float8_e4m3fn).float() * scale


def dense_of(path, round_weight, which=is_linear):
    return {name: round_weight(tensor.float()) for name, tensor in tensors_of(path).items() if which(name)}


ROWS = {
    "tpu_int8": (None, lambda weight: rows(weight, 1e-5, -128)),
    "neuron_quant": (None, rows),
    "neuron_quant f8e4m3fn": ("f8e4m3fn", float8_rows),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows(llama, tmp_path, case, monkeypatch):
    dtype, formula = ROWS[case]
    if dtype:
        monkeypatch.setenv("NEURON_QUANT_DTYPE", dtype)
    method = case.split()[0]
    wanted = logits_of_transformers(llama, dense_of(llama, formula), tmp_path)
    assert worst(logits_of(llama, quantization=method), wanted) < 1e-5
    halves = logits_of_transformers(llama, dense_of(llama, lambda weight: formula(weight.bfloat16().float())), tmp_path)
    assert worst(logits_of(llama, quantization=method, native=True, dtype="bfloat16"), halves) < 4e-2
    model, _ = load_model(llama, quantization=method)
    assert model.head.kernel.packed.layout == "dense"


def test_ranks_round_what_they_hold(llama, tmp_path):
    """Rows divided by outputs have the same scales; those divided by inputs their own."""

    def formula(name, weight):
        halves = weight.chunk(2, 1) if name.endswith(("o_proj.weight", "down_proj.weight")) else (weight,)
        return torch.cat([rows(half, 1e-5, -128) for half in halves], 1)

    dense = {name: formula(name, tensor.float()) for name, tensor in tensors_of(llama).items() if is_linear(name)}
    assert worst(logits_of(llama, ranks=2, quantization="tpu_int8"), logits_of_transformers(llama, dense, tmp_path)) < 1e-5


def test_experts_alone(experts, llama, tmp_path):
    dense = dense_of(experts, rows, lambda name: ".experts." in name)
    assert dense
    assert worst(logits_of(experts, quantization="experts_int8"), logits_of_transformers(experts, dense, tmp_path)) < 1e-5
    with pytest.raises(ConfigError, match="LlamaForCausalLM has none"):
        load_model(llama, quantization="experts_int8")


def test_routers_stay_as_they_are(experts, tmp_path):
    dense = dense_of(experts, lambda weight: rows(weight, 1e-5, -128))
    assert worst(logits_of(experts, quantization="tpu_int8"), logits_of_transformers(experts, dense, tmp_path)) < 1e-5


def test_an_unknown_neuron_dtype_is_refused(llama, monkeypatch):
    monkeypatch.setenv("NEURON_QUANT_DTYPE", "s4")
    with pytest.raises(ConfigError, match="NEURON_QUANT_DTYPE is 's4'"):
        load_model(llama, quantization="neuron_quant")


def small_floats(exponents, mantissas):
    """All values of a float of so many bits whose exponents all stand for normal numbers; 0 in place of the smallest."""
    bias = (1 << (exponents - 1)) - 1
    steps = range(1 << mantissas)
    values = [(1 + m / (1 << mantissas)) * 2.0 ** (e - bias) for e in range(1 << exponents) for m in steps]
    return torch.tensor(sorted([0.0, *values[1:], *(-value for value in values)]))


def deepspeed(weight, bits, group):
    values = small_floats(3, 2) if bits == 6 else small_floats(4, 3)
    top = 28.0 if bits == 6 else 480.0
    assert float(values.max()) == top
    flat = weight.flatten()
    out = torch.empty_like(flat)
    for start in range(0, len(flat), group):
        run = flat[start : start + group]
        scale = run.abs().max() / top
        out[start : start + group] = values[((run / scale).unsqueeze(1) - values).abs().argmin(1)] * scale
    return out.view(weight.shape)


@pytest.mark.parametrize(("bits", "group"), [(8, 512), (6, 512), (6, 96)])
def test_deepspeed(llama, tmp_path, bits, group):
    from engine.plugin import LinearShape
    from engine_quant._deepspeed import DeepSpeedFormat

    weight = torch.randn(24, 96)
    packed = DeepSpeedFormat(bits, group).pack(LinearShape("x", 96, 24), {"weight": weight}, torch.float32)
    got, wanted = packed.dequantize(torch.float32), deepspeed(weight, bits, group)
    # Halfway between two values either is nearest.
    assert ((got - wanted).abs() > 1e-6).float().mean() < 1e-3
    assert ((got - weight).abs() <= (wanted - weight).abs() + 1e-5).all()
    source = tmp_path / "model"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).symlink_to(file)
    (source / "quant_config.json").write_text(json.dumps({"quant_method": "deepspeedfp", "bits": bits, "group_size": group}))

    def dense(dtype):
        def made(weight):
            shape = LinearShape("x", weight.shape[1], len(weight))
            return DeepSpeedFormat(bits, group).pack(shape, {"weight": weight.to(dtype)}, dtype).dequantize(torch.float32)

        return logits_of_transformers(llama, dense_of(llama, made), tmp_path)

    assert worst(logits_of(source, quantization="deepspeedfp"), dense(torch.float32)) < 1e-5
    assert worst(logits_of(source, quantization="deepspeedfp", native=True, dtype="bfloat16"), dense(torch.bfloat16)) < 4e-2


def test_deepspeed_needs_its_file(llama):
    with pytest.raises((ConfigError, ModelFileError), match=r"quant_config\.json"):
        load_model(llama, quantization="deepspeedfp")


@pytest.mark.parametrize(
    ("method", "native", "kernels"),
    [
        ("tpu_int8", "1", {"grouped_int 8": "a kernel of cpu"}),
        ("tpu_int8", "0", {"grouped_int 8": "none of cpu: dequantized in slices at each product"}),
        ("bitsandbytes", "1", {"codebook 4": "a kernel of cpu"}),
    ],
)
def test_the_plan_says_what_has_a_kernel(llama, monkeypatch, method, native, kernels):
    from engine.args import EngineArgs
    from engine.report import examine

    monkeypatch.setenv("ENGINE_CPU_NATIVE", native)
    found, error = examine(EngineArgs(model=str(llama), quantization=method, skip_tokenizer_init=True, device="cpu"))
    assert error is None
    assert found["quantization"]["kernels"] == kernels


def test_random_weights_are_rounded_too(llama, experts):
    for path in (llama, experts):
        model, _ = load_model(path, quantization="tpu_int8", load_format="dummy")
        held = {layer.kernel.packed.layout for layer in model.modules() if getattr(layer, "kernel", None) is not None}
        assert held == {"grouped_int", "dense"}


def test_bitsandbytes_brings_its_loader(llama):
    from engine.args import EngineArgs
    from engine.args.resolve import resolve

    config = resolve(EngineArgs(model=str(llama), quantization="bitsandbytes", skip_tokenizer_init=True, device="cpu"))
    assert config.choices["loader"].asked == "bitsandbytes"
    extra = {"qlora_adapter_name_or_path": "some/adapter"}
    with pytest.raises(ModelFileError, match="--qlora-adapter-name-or-path some/adapter"):
        resolve(EngineArgs(model=str(llama), quantization="bitsandbytes", model_loader_extra_config=extra, skip_tokenizer_init=True))
