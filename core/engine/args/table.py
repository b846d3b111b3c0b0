"""The table of all flags, by group in the order of ``--help``."""

from __future__ import annotations

from engine.args import flags_features, flags_model, flags_run, flags_server
from engine.args.flag import Flag

_GROUPS: tuple[tuple[str, str, bool, tuple[Flag, ...]], ...] = (
    ("loader", "Model and weights", True, flags_model.LOADER),
    ("config-format", "Model configuration", True, flags_model.CONFIG_FORMAT),
    ("tokenizer", "Tokenizer", True, flags_model.TOKENIZER),
    ("quant", "Quantization", True, flags_model.QUANT),
    ("device", "Device", True, flags_model.DEVICE),
    ("executor", "Workers", True, flags_run.EXECUTOR),
    ("kv-cache", "KV cache", True, flags_run.KV_CACHE),
    ("scheduler", "Scheduler", True, flags_run.SCHEDULER),
    ("compile", "Recording and compiling", True, flags_run.COMPILE),
    ("server", "Requests", True, flags_server.REQUESTS),
    ("guided", "Guided decoding", True, flags_features.GUIDED),
    ("reasoning", "Reasoning", True, flags_features.REASONING),
    ("pooling", "Task and pooling", True, flags_model.POOLING),
    ("spec-decode", "Speculative decoding", True, flags_features.SPECULATION),
    ("lora", "LoRA", True, flags_features.LORA),
    ("prompt-adapter", "Prompt adapters", True, flags_features.PROMPT_ADAPTER),
    ("multimodal", "Multimodal input", True, flags_features.MULTIMODAL),
    ("observability", "Observation", True, flags_features.OBSERVABILITY),
    ("http", "HTTP server", False, flags_server.HTTP),
)

TITLES = {key: title for key, title, _, _ in _GROUPS}


def _all() -> tuple[Flag, ...]:
    flags: list[Flag] = []
    for key, _, engine, rows in _GROUPS:
        for flag in rows:
            flag.group, flag.engine = key, engine if flag.engine is None else flag.engine
            flags.append(flag)
    return tuple(flags)


#: Every flag, grouped.
FLAGS: tuple[Flag, ...] = _all()


def by_dest() -> dict[str, Flag]:
    """Python name → flag."""
    return {flag.dest: flag for flag in FLAGS}
