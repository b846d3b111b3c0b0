"""GPTQ and AWQ checkpoints: tensors against their definition, whole models against transformers with the weights made dense."""

from __future__ import annotations

import json
import re

import pytest
import torch

from engine.errors import ConfigError, ModelFileError
from engine.layers.packed_quantized import GroupedInteger, Joined, Permuted
from engine.llm import LLM
from engine.plugin.request import SamplingParams
from tests.data import shared
from tests.quant import packers
from tests.quant.checkpoints import (
    change_tensors,
    load_model,
    logits_of,
    logits_of_transformers,
    packed_weights,
    tiny_mixtral,
    tiny_qwen3_moe,
    worst,
    write_quantized,
)

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def gptq(path, source, config=None, **how):
    """``source`` in GPTQ's layout at ``path``; ``config``: changes of the configuration. The dense weights."""
    names = {"bits": "bits", "group": "group_size", "symmetric": "sym", "act_order": "desc_act"}
    own = {names[key]: value for key, value in how.items() if key in names}
    return write_quantized(path, source, lambda _, weight: packers.gptq(weight, **how), GPTQ | own | (config or {}))


def awq(path, source, config=None, **how):
    names = {"bits": "bits", "group": "group_size"}
    own = {names[key]: value for key, value in how.items()}
    return write_quantized(path, source, lambda _, weight: packers.awq(weight, **how), AWQ | own | (config or {}))


def agree(path, source, dense, tmp_path, ranks=(1, 2), native=4e-2, **flags):
    """The reference kernels give transformers' logits on one rank and on two; the CPU's own kernels with bf16 nearly.

    There activations are rounded to 8 bits at every layer, of which a random network makes more than a kernel's 2e-2.
    """
    wanted = logits_of_transformers(source, dense, tmp_path)
    for count in ranks:
        assert worst(logits_of(path, ranks=count, **flags), wanted) < 1e-5
    assert worst(logits_of(path, native=True, **flags), wanted) < 1e-5
    assert worst(logits_of(path, native=True, dtype="bfloat16", **flags), wanted) < native


SCHEMES = {
    "4 bits": {},
    "4 bits, zero points": {"symmetric": False},
    "4 bits, one group": {"group": -1, "symmetric": False},
    "4 bits, act-order": {"act_order": True, "symmetric": False},
    "4 bits, act-order of one group": {"act_order": True, "group": -1},
    "8 bits": {"bits": 8, "group": 64},
    "8 bits, zero points, act-order": {"bits": 8, "group": 64, "symmetric": False, "act_order": True},
    "2 bits": {"bits": 2, "symmetric": False},
    "3 bits": {"bits": 3, "symmetric": False},
    "3 bits, act-order": {"bits": 3, "act_order": True},
    "no g_idx": {"index": False, "group": 64},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gptq_gives_the_logits_of_its_weights(scheme, llama, tmp_path):
    how = SCHEMES[scheme]
    dense = gptq(tmp_path / "q", llama, **how)
    agree(tmp_path / "q", llama, dense, tmp_path)


def test_gptq_v2_stores_zero_points_themselves(llama, tmp_path):
    dense = gptq(tmp_path / "q", llama, {"checkpoint_format": "gptq_v2"}, symmetric=False, version=2)
    agree(tmp_path / "q", llama, dense, tmp_path, ranks=(1,))


@pytest.mark.parametrize("method", ["gptq", "gptq_marlin", "ipex"])
def test_methods_that_share_the_checkpoint(method, llama, tmp_path):
    dense = gptq(tmp_path / "q", llama)
    agree(tmp_path / "q", llama, dense, tmp_path, ranks=(1,), quantization=method)


def test_implied_zero_points_are_not_read(llama, tmp_path):
    dense = gptq(tmp_path / "q", llama)
    change_tensors(tmp_path / "q", lambda tensors: [tensors.pop(name) for name in list(tensors) if name.endswith("qzeros")])
    wanted = logits_of_transformers(llama, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q", quantization="gptq_marlin"), wanted) < 1e-5
    with pytest.raises(ModelFileError, match="qzeros"):
        logits_of(tmp_path / "q", quantization="gptq")


@pytest.mark.parametrize("family", [tiny_mixtral, tiny_qwen3_moe])
@pytest.mark.parametrize("act_order", [False, True])
def test_experts(family, act_order, tmp_path):
    source = family(tmp_path / "source")
    dense = gptq(tmp_path / "gptq", source, symmetric=False, act_order=act_order)
    agree(tmp_path / "gptq", source, dense, tmp_path, native=8e-2)
    if not act_order:
        agree(tmp_path / "gptq", source, dense, tmp_path, quantization="moe_wna16", native=8e-2)
        dense = awq(tmp_path / "awq", source)
        agree(tmp_path / "awq", source, dense, tmp_path, native=8e-2)


@pytest.mark.parametrize("how", [{}, {"group": -1}, {"bits": 8}], ids=str)
def test_awq_gives_the_logits_of_its_weights(how, llama, tmp_path):
    dense = awq(tmp_path / "q", llama, **how)
    agree(tmp_path / "q", llama, dense, tmp_path)
    agree(tmp_path / "q", llama, dense, tmp_path, ranks=(1,), quantization="awq_marlin")


def test_awq_spells_its_keys_in_two_ways_and_leaves_modules_out(llama, tmp_path):
    config = {"quant_method": "awq", "w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}
    config["modules_to_not_convert"] = ["v_proj", "layers.1.mlp.down_proj"]

    def pack(name, weight):
        return None if any(each in name for each in config["modules_to_not_convert"]) else packers.awq(weight)

    dense = write_quantized(tmp_path / "q", llama, pack, config)
    assert len(dense) == 11
    agree(tmp_path / "q", llama, dense, tmp_path)
    assert sum(isinstance(packed, Joined) for packed in packed_weights(tmp_path / "q").values()) == 2


def test_rules_of_gptqmodel_for_single_modules(llama, tmp_path):
    rules = {
        r"-:.*\.0\.mlp\.down_proj": {}, r"+:.*k_proj": {"bits": 8, "group_size": 64}, r".*\.mlp\.": {"bits": 3, "sym": False},
        r".*gate_proj": {"bits": 2},
    }  # fmt: skip

    def pack(name, weight):
        if name.endswith("0.mlp.down_proj"):
            return None
        if name.endswith("k_proj"):
            return packers.gptq(weight, bits=8, group=64)
        return packers.gptq(weight, bits=3, symmetric=False) if ".mlp." in name else packers.gptq(weight)

    dense = write_quantized(tmp_path / "q", llama, pack, GPTQ | {"dynamic": rules})
    assert len(dense) == 13
    agree(tmp_path / "q", llama, dense, tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq_marlin"])
def test_a_quantized_head(method, llama, tmp_path):
    pack, config = (packers.gptq, GPTQ) if method == "gptq" else (packers.awq, AWQ)
    dense = write_quantized(
        tmp_path / "q", llama, lambda _, weight: pack(weight), config | {"lm_head": True},
        linear=lambda name: name.endswith("_proj.weight") or name == "lm_head.weight",
    )  # fmt: skip
    assert "lm_head.weight" in dense
    agree(tmp_path / "q", llama, dense, tmp_path, quantization=method)


@pytest.mark.parametrize("name", ["q_gptq", "q_awq"])
def test_checkpoints_of_the_real_producers(name):
    path = shared(f"checkpoints/{name}")
    rows = json.loads((path / "reference_logits.json").read_text())["rows"]
    prompts = tuple(row["prompt_ids"] for row in rows)
    for dtype, native, most in (("float32", False, 1e-2), ("bfloat16", False, 1.5e-2), ("bfloat16", True, 3e-2)):
        got = [logits[-1] for logits in logits_of(path, prompts, dtype=dtype, native=native)]
        for logits, row in zip(got, rows, strict=True):
            assert (logits - torch.tensor(row["last_logits"])).abs().max() < most
            if row["margins"][0] > 2 * most:
                assert int(logits.argmax()) == row["greedy_ids"][0]


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_kernels_are_near_the_exact_product(bits, act_order, llama, tmp_path):
    gptq(tmp_path / "q", llama, bits=bits, symmetric=False, act_order=act_order)
    model, _ = load_model(tmp_path / "q", native=True, dtype="bfloat16")
    reference = packed_weights(tmp_path / "q")
    assert len(reference) == 9
    for name, packed in reference.items():
        x = torch.randn(5, packed.inputs, generator=torch.Generator().manual_seed(1)).bfloat16()
        product = x.float() @ packed.dequantize(torch.float32).T
        got = model.get_submodule(name).kernel.apply(x, None).float()
        assert (got - product).abs().max() / product.abs().max() < 2e-2


def test_what_is_held_is_packed(llama, tmp_path):
    for bits, act_order in ((4, False), (3, False), (4, True)):
        path = tmp_path / f"{bits}{act_order}"
        gptq(path, llama, bits=bits, act_order=act_order)
        held = [packed for name, packed in packed_weights(path).items() if name != "head"]
        assert len(held) == 8
        for packed in held:
            inner = packed.inner if act_order else packed
            assert isinstance(packed, Permuted if act_order else GroupedInteger)
            assert inner.bits == bits and inner.shift is None
            order = packed.order.nbytes if act_order else 0
            assert packed.nbytes() == packed.outputs * packed.inputs * bits // 8 + packed.outputs * packed.inputs // 32 * 2 + order


BAD_CONFIGS = {
    "bits": ({"bits": 5}, "bits is 5; it must be 2, 3, 4 or 8"),
    "no bits": ({"bits": None}, "bits is missing"),
    "group": ({"group_size": 0}, "group_size is 0"),
    "odd group": ({"group_size": 48}, "no multiple of 48"),
    "format": ({"checkpoint_format": "bitblas"}, "checkpoint_format is 'bitblas'"),
    "words": ({"pack_dtype": "int16"}, "pack_dtype is 'int16'; it must be int32"),
    "rule": ({"dynamic": {"-:(": {}}}, "no regular expression"),
    "rule's bits": ({"dynamic": {".*q_proj": {"bits": 7}}}, "bits is 7"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_configs_that_cannot_be_read_are_refused(case, llama, tmp_path):
    changes, message = BAD_CONFIGS[case]
    gptq(tmp_path / "q", llama, changes)
    with pytest.raises(ModelFileError, match=re.escape(message)):
        logits_of(tmp_path / "q", quantization="gptq")


def test_awq_configs_that_cannot_be_read_are_refused(llama, tmp_path):
    for changes, message in (
        ({"version": "exllama"}, "version is 'exllama'; it must be one of gemm, gemv, gemv_fast"),
        ({"bits": 3}, "bits is 3; it must be 4 or 8"),
        ({"backend": "llm-awq", "bits": 8}, "version is 'llm-awq'; it must be gemm"), ({"group_size": 0}, "group_size is 0"),
    ):  # fmt: skip
        awq(tmp_path / "q", llama, changes)
        with pytest.raises(ModelFileError, match=re.escape(message)):
            logits_of(tmp_path / "q", quantization="awq")


NAME = "model.layers.1.self_attn.o_proj"
DAMAGES = {
    "missing": (lambda t: t.pop(f"{NAME}.scales"), f"{NAME}.scales"),
    "short": (lambda t: t.update({f"{NAME}.qweight": t[f"{NAME}.qweight"][:-1].clone()}), f"{NAME}.qweight' has shape [15, 128]"),
    "narrow": (lambda t: t.update({f"{NAME}.qzeros": t[f"{NAME}.qzeros"][:, :-1].clone()}), f"{NAME}.qzeros' has shape [4, 15]"),
    "dtype": (lambda t: t.update({f"{NAME}.qweight": t[f"{NAME}.qweight"].long()}), f"{NAME}.qweight' holds int64"),
    "scales": (lambda t: t.update({f"{NAME}.scales": t[f"{NAME}.scales"].int()}), f"{NAME}.scales' holds int32"),
    "groups": (lambda t: t.update({f"{NAME}.g_idx": t[f"{NAME}.g_idx"] + 1}), f"{NAME}.g_idx' names group 4"),
    "part": (lambda t: t.pop("model.layers.0.self_attn.k_proj.qweight"), "model.layers.0.self_attn.k_proj.qweight"),
    "deep": (lambda t: t.update({f"{NAME}.qweight": t[f"{NAME}.qweight"][None]}), f"{NAME}.qweight' has shape [1, 16, 128]"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_tensors_are_named(case, llama, tmp_path):
    damage, message = DAMAGES[case]
    gptq(tmp_path / "q", llama)
    change_tensors(tmp_path / "q", damage)
    with pytest.raises(ModelFileError, match=re.escape(message)):
        logits_of(tmp_path / "q", quantization="gptq")


def test_a_shard_that_would_cut_a_group_is_refused(llama, tmp_path):
    gptq(tmp_path / "q", llama, group=128)
    with pytest.raises(ConfigError, match="keeps groups of 128, which a tensor-parallel shard of 64 would cut"):
        logits_of(tmp_path / "q", ranks=4, quantization="gptq")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_offline_api_serves_it(ranks, llama, tmp_path):
    dense = gptq(tmp_path / "q", llama, act_order=True, symmetric=False)
    prompt = [5, 17, 99, 3]
    with LLM(str(tmp_path / "q"), skip_tokenizer_init=True, dtype="float32", tensor_parallel_size=ranks, max_model_len=64) as llm:
        assert llm.config.choices["quantization"].name == "ipex"
        answer = llm.generate({"prompt_token_ids": prompt}, SamplingParams(temperature=0.0, max_tokens=8), use_tqdm=False)[0]
    tokens = list(answer.outputs[0].token_ids)
    wanted = logits_of_transformers(llama, dense, tmp_path, ([*prompt, *tokens[:-1]],))[0]
    assert tokens == wanted[len(prompt) - 1 :].argmax(-1).tolist()
