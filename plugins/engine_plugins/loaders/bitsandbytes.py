"""Weights for bitsandbytes: quantized by it already, or plain ones that are rounded while loading, with a QLoRA adapter beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.plugin import Checkpoint, Loader, Use, hookimpl

from ._files import SAFETENSORS, weight_files

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``qlora_adapter_name_or_path``: the adapter's directory."""

    qlora_adapter_name_or_path: str | None = None


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, options: Options | None) -> Loader | Use:
    if options is None or not options.qlora_adapter_name_or_path:
        return Use("auto", "its files hold what bitsandbytes saved, or plain weights")
    from ._adapter import AdaptedLoader, Adapter
    from .pt import TorchLoader
    from .safetensors import SafetensorsLoader

    base = SafetensorsLoader(checkpoint) if weight_files(checkpoint, SAFETENSORS) else TorchLoader(checkpoint)
    return AdaptedLoader(base, Adapter(Path(options.qlora_adapter_name_or_path)))
