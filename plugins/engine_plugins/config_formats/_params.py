"""Translates Mistral's params.json (mistral-inference's ``TransformerArgs``) into the keys of config.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError

_RENAMED = {
    "dim": "hidden_size", "norm_eps": "rms_norm_eps", "n_kv_heads": "num_key_value_heads", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "hidden_dim": "intermediate_size",
}  # fmt: skip
_NEEDED = ("dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "norm_eps", "vocab_size")
_LENGTH = 128_000
#: Blocks that describe computations which the Mistral and Mixtral networks here do not have.
_FOREIGN = ("llama_4_scaling", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "lora", "attn_bias", "first_k_dense_replace")
_DTYPES = ("float32", "float16", "bfloat16")


def convert(file: Path, params: dict[str, Any]) -> dict[str, Any]:
    """The configuration in today's words. Raises :class:`ModelFileError` naming the key."""
    if "vision_encoder" in params:
        text = convert(file, {key: value for key, value in params.items() if key != "vision_encoder"})
        return {
            "model_type": "pixtral", "architectures": ["PixtralForConditionalGeneration"], "text_config": text,
            "vision_config": _rename(params["vision_encoder"]),
        }  # fmt: skip
    for key in _FOREIGN:
        if params.get(key):
            _refuse(file, key, params[key], "absent: this engine has no network with it")
    for key in _NEEDED:
        if key not in params:
            raise ModelFileError(f"{file}: {key} is missing.", fix="download params.json again")
    experts = params.get("moe")
    config: dict[str, Any] = _rename({key: value for key, value in params.items() if key not in ("moe", "quantization", "yarn")})
    length = config.pop("max_seq_len", None) or config.get("max_position_embeddings") or _LENGTH
    config |= {
        "model_type": "mixtral" if experts else "mistral",
        "architectures": ["MixtralForCausalLM" if experts else "MistralForCausalLM"],
        "hidden_act": config.pop("activation", None) or "silu",
        "tie_word_embeddings": bool(config.pop("tie_embeddings", None) or config.pop("tied_embeddings", None)),
        "max_position_embeddings": length,
        "sliding_window": _window(file, params),
    }
    if config.get("rope_theta") is None:
        # what mistral-inference takes: models with a window were trained with the smaller base
        config["rope_theta"] = 10_000.0 if config["sliding_window"] else 1_000_000.0
    if experts:
        config |= _experts(file, experts)
    if params.get("yarn"):
        config["rope_scaling"] = _yarn(file, params["yarn"])
    if params.get("quantization"):
        config["quantization_config"] = _quantization(file, params["quantization"])
    return config


def stored_dtype(place: Path) -> str | None:
    """The floating dtype of most weights in the directory's safetensors files, by their headers; None where there are none."""
    from engine_plugins.loaders._header import read_header

    files = sorted(place.glob("consolidated*.safetensors")) or sorted(place.glob("*.safetensors"))
    if not place.is_dir() or not files or not files[0].is_file():
        return None
    counted: Counter[str] = Counter()
    for info in read_header(files[0]):
        if info.dtype in _DTYPES:
            counted[info.dtype] += info.nbytes
    return counted.most_common(1)[0][0] if counted else None


def _rename(value: Any) -> Any:
    if isinstance(value, list):
        return [_rename(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {_RENAMED.get(key, key): _rename(item) for key, item in value.items()}


def _window(file: Path, params: dict[str, Any]) -> int | None:
    window = params.get("sliding_window", params.get("_sliding_window"))
    if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window < 1):
        _refuse(file, "sliding_window", window, "one whole number of tokens, or null")
    return window


def _experts(file: Path, moe: Any) -> dict[str, Any]:
    if not isinstance(moe, dict) or not {"num_experts", "num_experts_per_tok"} <= set(moe):
        _refuse(file, "moe", moe, "an object with num_experts and num_experts_per_tok")
    return {"num_local_experts": moe["num_experts"], "num_experts_per_tok": moe["num_experts_per_tok"]}


def _yarn(file: Path, yarn: Any) -> dict[str, Any]:
    if not isinstance(yarn, dict) or not {"factor", "original_max_position_embeddings"} <= set(yarn):
        _refuse(file, "yarn", yarn, "an object with factor and original_max_position_embeddings")
    scaling = {
        "rope_type": "yarn", "factor": yarn["factor"],
        "original_max_position_embeddings": yarn["original_max_position_embeddings"],
        "beta_fast": yarn.get("beta", 32.0), "beta_slow": yarn.get("alpha", 1.0),
    }  # fmt: skip
    if yarn.get("apply_scale") is False:
        scaling["attention_factor"] = 1.0
    return scaling


def _quantization(file: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("qformat_weight") != "fp8_e4m3":
        _refuse(file, "quantization", value, 'an object whose qformat_weight is "fp8_e4m3"')
    return {"quant_method": "fp8", "activation_scheme": "static"}


def _refuse(file: Path, key: str, value: Any, allowed: str) -> NoReturn:
    raise ModelFileError(f"{file}: {key} is {value!r:.200}; it must be {allowed}.", fix="a checkpoint of another form of the model")
