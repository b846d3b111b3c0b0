"""Flags of the offline commands that say how to choose tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.args.flag import Flag

if TYPE_CHECKING:
    from engine.plugin.request import SamplingParams

SAMPLING = (
    Flag("--max-tokens", "int", None, "Longest output in tokens; unset is 256, or what the context leaves.", metavar="TOKENS"),
    Flag("--temperature", "float", None, "0 always takes the most likely token; unset is the model's default."),
    Flag("--top-p", "float", None, "Only the most likely tokens that together have this probability."),
    Flag("--top-k", "int", None, "Only this many of the most likely tokens."),
    Flag("--min-p", "float", None, "Only tokens at least this share as likely as the most likely one."),
    Flag("--repetition-penalty", "float", None, "Above 1: tokens that have occurred become less likely."),
    Flag("--sampling-seed", "int", None, "Seed of the random choices of these outputs.", metavar="SEED"),
    Flag("--stop", "each", [], "Text that ends an output. Repeatable.", metavar="TEXT"),
)  # fmt: skip
DEFAULT_TOKENS = 256
_SAME_NAME = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def sampling_params(defaults: SamplingParams, own: Mapping[str, Any], **more: Any) -> SamplingParams:
    """The model's ``defaults`` with what the flags say; 256 tokens where neither says how many."""
    import msgspec

    changes: dict[str, Any] = {"max_tokens": DEFAULT_TOKENS}
    changes |= {name: own[name] for name in _SAME_NAME if own[name] is not None}
    if own["sampling_seed"] is not None:
        changes["seed"] = own["sampling_seed"]
    if own["stop"]:
        changes["stop"] = tuple(own["stop"])
    return msgspec.structs.replace(defaults, **(changes | more))
