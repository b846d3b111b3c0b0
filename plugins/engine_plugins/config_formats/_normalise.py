"""One spelling for what published configurations spell in several ways, and checks of the sizes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError

#: Keys that must be a positive whole number (or a list of them, one per layer) where given, with their largest.
_SIZES: dict[str, int] = {
    "num_hidden_layers": 10_000, "n_layer": 10_000, "num_layers": 10_000,
    "num_attention_heads": 100_000, "num_key_value_heads": 100_000, "n_head": 100_000,
    "head_dim": 100_000, "hidden_size": 10_000_000, "n_embd": 10_000_000, "intermediate_size": 100_000_000,
    "vocab_size": 100_000_000, "max_position_embeddings": 2**40, "n_positions": 2**40,
    "num_local_experts": 100_000, "num_experts": 100_000, "num_experts_per_tok": 100_000,
}  # fmt: skip
_BOOLEANS = ("tie_word_embeddings", "use_sliding_window")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")
_ROPE = ("rope_scaling", "rope_parameters")
#: Spellings of architectures in checkpoints of before transformers had them.
_RENAMED = {"LLaMAForCausalLM": "LlamaForCausalLM"}
_RENAMED_ROPE = {"su": "longrope", "mrope": "default"}


def check_sizes(file: Path, config: dict[str, Any]) -> None:
    """Sizes and switches have the right type and can be meant, in the config and its ``text_config``.

    Raises :class:`ModelFileError` naming the key path, its value and what is allowed.
    """
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and architectures and all(isinstance(name, str) for name in architectures)
    ):
        _refuse(file, "architectures", architectures, "a list of class names")
    for prefix, part in _parts(file, config):
        for key, largest in _SIZES.items():
            value = part.get(key)
            values = value if isinstance(value, list) else [value]
            # some configs write 0 experts for a dense model
            least = 0 if "expert" in key else 1
            if value is not None and not all(_whole(item, least, largest) for item in values):
                _refuse(file, prefix + key, value, f"a whole number from {least} to {largest}")
        for key in _BOOLEANS:
            if part.get(key) is not None and not isinstance(part[key], bool):
                _refuse(file, prefix + key, part[key], "true or false")


def normalise(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """``dtype`` for ``torch_dtype``; ``rope_type`` for ``type`` and architectures with today's names; the rest as it is."""
    if isinstance(found := config.get("architectures"), list):
        config["architectures"] = [_RENAMED.get(name, name) if isinstance(name, str) else name for name in found]
    for prefix, part in _parts(file, config):
        _normalise_dtype(file, prefix, part)
        for key in _ROPE:
            if part.get(key) is not None:
                part[key] = _normalise_rope(file, prefix + key, part[key])
    return config


def _parts(file: Path, config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The config itself and, where a multimodal config nests one, its language model's."""
    text = config.get("text_config")
    if text is None:
        return [("", config)]
    if not isinstance(text, dict):
        _refuse(file, "text_config", text, "an object")
    return [("", config), ("text_config.", text)]


def _normalise_dtype(file: Path, prefix: str, part: dict[str, Any]) -> None:
    old, new = (part.get(key) for key in ("torch_dtype", "dtype"))
    if old is not None and new is not None and old != new:
        _refuse(file, f"{prefix}torch_dtype", old, f"the same as {prefix}dtype ({new!r})")
    dtype = new if new is not None else old
    if dtype in (None, "auto"):
        for key in ("torch_dtype", "dtype"):
            part.pop(key, None)
        return
    plain = dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype
    if plain not in _DTYPES:
        _refuse(file, prefix + ("dtype" if new is not None else "torch_dtype"), dtype, "one of " + ", ".join(_DTYPES))
    part.pop("torch_dtype", None)
    part["dtype"] = plain


def _normalise_rope(file: Path, key: str, value: Any) -> dict[str, Any]:
    """One rope object, or (``rope_parameters`` of some models) an object of them per layer type."""
    if not isinstance(value, dict):
        _refuse(file, key, value, "an object")
    if value and all(isinstance(item, dict) for item in value.values()):
        return {name: _normalise_rope(file, f"{key}.{name}", item) for name, item in value.items()}
    old, new = value.get("type"), value.get("rope_type")
    if old is not None and new is not None and _RENAMED_ROPE.get(old, old) != _RENAMED_ROPE.get(new, new):
        _refuse(file, f"{key}.type", old, f"the same as {key}.rope_type ({new!r})")
    kind = new if new is not None else old
    result = {name: item for name, item in value.items() if name != "type"}
    if kind is not None:
        if not isinstance(kind, str):
            _refuse(file, f"{key}.rope_type", kind, "a name such as linear, dynamic, yarn, llama3 or longrope")
        result["rope_type"] = _RENAMED_ROPE.get(kind, kind)
    return result


def _whole(value: Any, least: int, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= largest


def _refuse(file: Path, key: str, value: Any, allowed: str) -> NoReturn:
    raise ModelFileError(
        f"{file}: {key} is {value!r:.200}; it must be {allowed}.", fix=f"--hf-overrides '{{\"{key}\": …}}'"
    )
