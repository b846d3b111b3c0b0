"""Rotary position embedding as a configuration describes it, and the context length that follows. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader

#: Spellings of older checkpoints. ``mrope`` places text as ``default`` does.
_ALIASES = {"su": "longrope", "mrope": "default"}
_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
#: Keys that state a context length, in the spellings of the families.
LENGTH_KEYS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "model_max_length",
    "max_sequence_length", "max_seq_length",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """One kind of rotary embedding.

    ``dim``: how many of a head's elements rotate. ``max_position``: the length that the config states, ``original``: the one of
    pretraining. ``attention_factor`` multiplies cos and sin (None: the type's own rule).
    """

    type: str
    theta: float
    dim: int
    max_position: int
    original: int
    factor: float = 1.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()


def read_rope(
    config: dict[str, Any],
    *,
    head_dim: int,
    max_position: int,
    theta: float = 10_000.0,
    partial: float = 1.0,
    original: int | None = None,
    layer_type: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> RopeSpec:
    """The rotary embedding of a config with the old keys (``rope_theta``, ``rope_scaling``) or ``rope_parameters``.

    ``theta``, ``partial`` and ``original`` (``original_max_position_embeddings``) are the family's defaults. ``layer_type``
    picks an entry of a ``rope_parameters`` kept per layer type; ``aliases`` are type names with a meaning of the family's own.
    Raises :class:`ModelFileError` naming the key.
    """
    top = ConfigReader(config)
    params = rope_table(top, layer_type) or ConfigReader({}, "rope_parameters.")
    kind = rope_type(params)
    kind = (aliases or {}).get(kind, kind)
    # A scaling given on the command line replaces the table, not the base frequency that the newer spelling keeps in it.
    kept = _entry(top.table("rope_parameters"), layer_type) or params
    theta = params.number("rope_theta", top.number("rope_theta", kept.number("rope_theta", theta)))
    fallback = top.number("partial_rotary_factor", kept.number("partial_rotary_factor", partial))
    partial = params.number("partial_rotary_factor", fallback)
    dim = int(head_dim * partial)
    if partial > 1 or dim < 2 or dim % 2:
        wanted = f"a share of head_dim {head_dim} that gives an even number of elements"
        raise top.complaint("partial_rotary_factor", partial, wanted)
    return _scaled(kind, params, top, RopeSpec("default", theta, dim, max_position, original or max_position))


def rope_table(top: ConfigReader, layer_type: str | None = None) -> ConfigReader | None:
    """The object that describes the scaling, in either spelling."""
    table = top.table("rope_scaling") or top.table("rope_parameters")
    return _entry(table, layer_type)


def _entry(table: ConfigReader | None, layer_type: str | None) -> ConfigReader | None:
    nested = table.table(layer_type) if table is not None and layer_type is not None else None
    return nested or table


def rope_type(params: ConfigReader) -> str:
    """``rope_type`` (or the older ``type``) with aliases resolved."""
    new, old = params.values.get("rope_type"), params.values.get("type")
    if new is not None and old is not None and _ALIASES.get(new, new) != _ALIASES.get(old, old):
        raise ModelFileError(f"config.json: {params.path}rope_type is {new!r} but {params.path}type is {old!r}; give one of them.")
    key = "rope_type" if new is not None else "type"
    found = params.text(key, "default")
    kind = _ALIASES.get(found, found)
    if kind not in _TYPES:
        raise params.complaint(key, found, f"one of {', '.join((*_TYPES, *_ALIASES))}")
    return kind


def _scaled(kind: str, params: ConfigReader, top: ConfigReader, base: RopeSpec) -> RopeSpec:
    common: dict[str, Any] = {
        "type": kind, "theta": base.theta, "dim": base.dim, "max_position": base.max_position, "original": base.max_position
    }  # fmt: skip
    if kind in ("llama3", "yarn", "longrope"):
        outer = top.optional_integer("original_max_position_embeddings")
        common["original"] = outer or params.optional_integer("original_max_position_embeddings") or base.original
    if kind in ("linear", "dynamic", "llama3"):
        common["factor"] = params.number("factor")
    if kind in ("yarn", "longrope"):
        common["factor"] = params.number("factor", base.max_position / common["original"])
        common["attention_factor"] = params.optional_number("attention_factor")
    if kind == "llama3":
        common["low_freq_factor"] = params.number("low_freq_factor")
        common["high_freq_factor"] = params.number("high_freq_factor")
        if common["high_freq_factor"] <= common["low_freq_factor"]:
            raise params.complaint("high_freq_factor", common["high_freq_factor"], "larger than low_freq_factor")
    if kind == "yarn":
        common["beta_fast"], common["beta_slow"] = params.number("beta_fast", 32.0), params.number("beta_slow", 1.0)
        common["mscale"], common["mscale_all_dim"] = (
            params.optional_number("mscale"),
            params.optional_number("mscale_all_dim"),
        )
        common["truncate"] = params.flag("truncate", True)
    if kind == "longrope":
        common["short_factor"] = params.numbers("short_factor", base.dim // 2)
        common["long_factor"] = params.numbers("long_factor", base.dim // 2)
    return RopeSpec(**common)


def context_length(config: dict[str, Any], stated: int, *, layer_type: str | None = None, scaled: bool = True) -> int:
    """The longest context: the smallest length that the config states, times the rope factor.

    ``stated`` is the family's own key with its default. longrope and llama3 state the scaled length already, yarn scales
    ``original_max_position_embeddings``. ``scaled`` False: the family states the scaled length whatever the type.
    """
    top = ConfigReader(config)
    length = min([stated, *(top.integer(key, high=1 << 40) for key in LENGTH_KEYS if config.get(key) is not None)])
    params = rope_table(top, layer_type)
    if params is None or not scaled:
        return length
    kind = rope_type(params)
    if kind == "yarn":
        outer = top.optional_integer("original_max_position_embeddings")
        length = outer or params.optional_integer("original_max_position_embeddings") or length
    if kind in ("linear", "dynamic", "yarn"):
        length = int(length * params.number("factor", 1.0))
    return length
