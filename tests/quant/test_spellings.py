"""Configurations as repositories have them: old and new keys, empty ones, side files; and tensors that nothing needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import ModelFileError
from tests.quant import floats, packers
from tests.quant.checkpoints import Quantized, change_tensors, logits_of, logits_of_transformers, worst, write_quantized

AUTO = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False, "data_type": "int"}


def spelled(path: Path, source: Path, config: dict[str, Any] | None, **keys: Any) -> Path:
    """The plain checkpoint under another configuration: other keys, a quantization_config."""
    write_quantized(path, source, lambda *_: None, config)
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return path


def test_a_dtype_that_leaves_it_open(llama: Path, tmp_path: Path) -> None:
    assert worst(logits_of(spelled(tmp_path / "q", llama, None, dtype="auto")), logits_of(llama)) == 0


def test_an_architecture_in_its_first_spelling(llama: Path, tmp_path: Path) -> None:
    path = spelled(tmp_path / "q", llama, None, architectures=["LLaMAForCausalLM"])
    assert worst(logits_of(path), logits_of(llama)) == 0


def test_leftovers_of_training_and_of_other_engines(llama: Path, tmp_path: Path) -> None:
    path = spelled(tmp_path / "q", llama, None)
    change_tensors(path, lambda t: t.update({
        "model.layers.0.self_attn.k_proj._extra_state": torch.zeros(1, dtype=torch.uint8),
        "model.layers.0.mlp.up_proj.input_scale_ub": torch.tensor([1200.0]),
    }))  # fmt: skip
    assert worst(logits_of(path), logits_of(llama)) == 0


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"load_in_8bit": True, "llm_int8_threshold": 6.0}, "bitsandbytes"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
        (floats.modelopt_config("FP8") | {"quant_method": "modelopt_fp8"}, "modelopt"),
        (floats.modelopt_config("NVFP4") | {"quant_method": "modelopt_fp4"}, "nvfp4"),
        (AUTO | {"quant_method": "intel/auto-round"}, "auto-round"),
    ],
)
def test_a_method_in_other_words(llama: Path, tmp_path: Path, config: dict[str, Any], method: str) -> None:
    from engine.args import EngineArgs
    from engine.args.resolve import resolve

    path = spelled(tmp_path / "q", llama, config)
    plan = resolve(EngineArgs(model=str(path), skip_tokenizer_init=True, device="cpu")).plan
    assert plan["quantization"]["method"] == method


def packed_words(weight: Tensor) -> Quantized:
    """compressed-tensors' pack-quantized of 4 bits in groups of 32."""
    codes, scales, zeros = packers.in_groups(weight, np.arange(weight.shape[1]) // 32, weight.shape[1] // 32, 4, symmetric=True)
    dense = packers.dense_of(codes, scales, zeros, np.arange(weight.shape[1]) // 32)
    words = torch.from_numpy(packers.stream(codes.T.copy(), 4).T.copy())
    tensors = {"weight_packed": words, "weight_scale": torch.from_numpy(scales.copy()), "weight_shape": torch.tensor(list(weight.shape))}
    return tensors, dense


def biased(made: Quantized) -> Quantized:
    """With the bias of zeros that old producers give to every layer."""
    return {**made[0], "bias": torch.zeros(len(made[1]), dtype=torch.float16)}, made[1]


def halved(made: Quantized) -> Quantized:
    """Scales in bfloat16."""
    scale = made[0]["weight_scale_inv"].bfloat16()
    wide = scale.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[: made[1].shape[0], : made[1].shape[1]]
    return {**made[0], "weight_scale_inv": scale}, made[0]["weight"].float() * wide


OLD_GPTQ = {
    "bits": 4, "group_size": 32, "damp_percent": 0.1, "desc_act": True, "static_groups": False, "sym": True, "true_sequential": True,
    "model_name_or_path": None, "model_file_base_name": "model",
}  # fmt: skip
TRANSFORMERS_GPTQ = {
    "quant_method": "gptq", "bits": 4, "group_size": 32, "damp_percent": 0.1, "desc_act": False, "sym": True, "batch_size": 1,
    "block_name_to_quantize": None, "cache_block_outputs": True, "dataset": None, "disable_exllama": True, "exllama_config": {"version": 1},
    "max_input_length": None, "model_seqlen": None, "module_name_preceding_first_block": None, "modules_in_block_to_quantize": None,
    "pad_token_id": None, "tokenizer": None, "true_sequential": True, "use_cuda_fp16": False, "use_exllama": False, "backend": None,
    "checkpoint_format": None,
}  # fmt: skip
GPTQMODEL = {
    "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True, "lm_head": False, "checkpoint_format": "gptq",
    "format": "gptq", "pack_dtype": "int32", "dynamic": None, "adapter": None, "static_groups": False, "hyb_act": False,
    "meta": {"quantizer": ["gptqmodel:7.6"], "damp_percent": 0.05, "uri": "https://github.com/modelcloud/gptqmodel"},
}  # fmt: skip
AWQ = {
    "quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm", "backend": "autoawq", "do_fuse": False,
    "exllama_config": None, "fuse_max_seq_len": None, "modules_to_fuse": None, "modules_to_not_convert": None,
}  # fmt: skip
GPTQMODEL_AWQ = GPTQMODEL | {"quant_method": "awq", "checkpoint_format": "gemm", "format": "gemm", "zero_point": True, "sym": False}
NUMBERS = {
    "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "actorder": None, "block_structure": None,
    "dynamic": False, "observer": "minmax", "observer_kwargs": {},
}  # fmt: skip
GROUPS = {"group_0": {"targets": ["Linear"], "weights": NUMBERS, "input_activations": None, "output_activations": None}}
COMPRESSED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "global_compression_ratio": 1.89, "ignore": ["lm_head"],
    "kv_cache_scheme": None, "quantization_status": "frozen", "config_groups": GROUPS,
}  # fmt: skip
NEWER = COMPRESSED | {
    "quantization_status": "compressed", "sparsity_config": {}, "transform_config": {}, "version": "0.12.2", "ignore": ["re:.*lm_head"],
    "config_groups": {"group_0": GROUPS["group_0"] | {
        "format": None, "targets": [r"re:.*self_attn\.(q|k|v|o)_proj$", r"re:.*mlp\.(gate|up|down)_proj$"],
        "weights": NUMBERS | {"actorder": "static", "scale_dtype": None, "zp_dtype": None},
    }},
}  # fmt: skip
QWEN_FP8 = {
    "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"],
}  # fmt: skip
HQQ = {"quant_method": "hqq", "skip_modules": ["lm_head"], "quant_config": {
    "offload_meta": False, "scale_quant_params": None, "zero_quant_params": None,
    "weight_quant_params": {
        "axis": 1, "channel_wise": True, "group_size": 64, "nbits": 4, "optimize": True, "round_zero": True, "view_as_float": False,
    },
}}  # fmt: skip
SPEC = {
    "ch_axis": None, "group_size": None, "observer_cls": "PerTensorMinMaxObserver", "round_method": "half_even", "scale_type": "float",
    "dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False, "symmetric": None,
}  # fmt: skip
QUARK = {
    "quant_method": "quark", "quant_mode": "eager_mode", "algo_config": None, "softmax_quant_spec": None, "layer_type_quant_config": {},
    "exclude": ["lm_head"], "kv_cache_quant_config": {}, "version": "0.8",
    "export": {"kv_cache_group": [], "min_kv_scale": 0.0, "pack_method": "reorder", "weight_format": "real_quantized",
               "weight_merge_groups": None},
    "global_quant_config": {"bias": None, "input_tensors": None, "output_tensors": None, "target_device": None, "weight": SPEC},
    "layer_quant_config": {},
}  # fmt: skip
OPT = {
    "quant_method": "modelopt", "quant_algo": "W8A16", "ignore": ["lm_head"], "producer": {"name": "modelopt", "version": "0.33.0"},
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"dynamic": False, "num_bits": 8, "type": "int"}}},
    "kv_cache_scheme": None,
}  # fmt: skip
SIDE_OPT = {"producer": {"name": "modelopt", "version": "0.19.0"},
            "quantization": {"quant_algo": "W8A16", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}}  # fmt: skip

#: What packs a layer, quantization_config, and side files.
SPELLINGS: dict[str, tuple[Callable[[Tensor], Quantized], dict[str, Any] | None, dict[str, Any]]] = {
    "gptq's side file": (lambda w: packers.gptq(w, act_order=True), None, {"quantize_config.json": OLD_GPTQ}),
    "gptq of transformers": (packers.gptq, TRANSFORMERS_GPTQ, {}),
    "gptq of gptqmodel": (packers.gptq, GPTQMODEL, {}),
    "gptq with biases of zeros": (lambda w: biased(packers.gptq(w)), TRANSFORMERS_GPTQ, {}),
    "gptq in one group with desc_act": (
        lambda w: packers.gptq(w, group=-1), TRANSFORMERS_GPTQ | {"group_size": -1, "desc_act": True}, {}
    ),
    "awq of transformers": (packers.awq, AWQ, {}),
    "awq of gptqmodel": (packers.awq, GPTQMODEL_AWQ, {}),
    "awq of gptqmodel, gemv": (packers.gemv, GPTQMODEL_AWQ | {"checkpoint_format": "gemv", "format": "gemv"}, {}),
    "awq's side file": (
        packers.awq, None, {"quant_config.json": {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}}
    ),
    "awq with biases of zeros": (lambda w: biased(packers.awq(w)), AWQ, {}),
    "compressed-tensors of 2024": (packed_words, COMPRESSED, {}),
    "compressed-tensors of 2025": (packed_words, NEWER, {}),
    "fp8 with scales in bfloat16": (lambda w: halved(floats.in_blocks(w)), QWEN_FP8, {}),
    "hqq of transformers": (packers.hqq, HQQ, {}),
    "quark in full": (lambda w: floats.alone(floats.per_layer(w)), QUARK, {}),
    "quark, rules in lists": (
        lambda w: floats.alone(floats.per_layer(w)),
        QUARK | {"global_quant_config": QUARK["global_quant_config"] | {"weight": [SPEC]}}, {},
    ),
    "modelopt in config.json": (floats.integer8, OPT, {}),
    "modelopt's side file": (floats.integer8, None, {"hf_quant_config.json": SIDE_OPT}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_configs_of_repositories(llama: Path, tmp_path: Path, name: str) -> None:
    pack, config, files = SPELLINGS[name]
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: pack(weight), config, side_files=files)
    # Blocks round activations, which falls to either side.
    near = 1e-1 if name.startswith("fp8") else 1e-5
    rounding = floats.rounded_by_group if name.startswith("fp8") else None
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(llama, dense, tmp_path, rounding=rounding)) < near


def test_a_bias_that_the_architecture_lacks_must_be_zero(llama: Path, tmp_path: Path) -> None:
    write_quantized(tmp_path / "q", llama, lambda _, weight: biased(packers.gptq(weight)), TRANSFORMERS_GPTQ)
    name = "model.layers.1.self_attn.v_proj.bias"
    change_tensors(tmp_path / "q", lambda tensors: tensors.update({name: tensors[name] + 0.5}))
    with pytest.raises(ModelFileError, match=f"{name}' that is not zero"):
        logits_of(tmp_path / "q")
