"""Weights for bitsandbytes: quantized by it already, or plain ones that are rounded while loading."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from engine.plugin import Checkpoint, Use, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``qlora_adapter_name_or_path``: known, and refused: an adapter is no checkpoint."""

    qlora_adapter_name_or_path: str | None = None


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, options: Options | None) -> Use:
    if options is not None and options.qlora_adapter_name_or_path:
        raise ConfigError(
            f"--model-loader-extra-config qlora_adapter_name_or_path {options.qlora_adapter_name_or_path!r}: "
            "QLoRA adapters are not merged while loading.",
            fix="merge the adapter into the model, or serve it with --enable-lora --lora-modules",
        )
    return Use("auto", "its files hold what bitsandbytes saved, or plain weights")
