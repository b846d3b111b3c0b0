"""The QLoRA adapter beside a plain model (--qlora-adapter-name-or-path): where it is, what it says of quantization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoint import locate_adapter
from engine.errors import ModelFileError

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs

KEY = "qlora_adapter_name_or_path"
CONFIG = "adapter_config.json"


def loader_options(args: EngineArgs) -> dict[str, Any]:
    """The loader's options, an adapter's local directory among them, fetched where it is a repository."""
    options = dict(args.model_loader_extra_config or {})
    name = args.qlora_adapter_name_or_path or options.get(KEY)
    if isinstance(name, str) and name:
        options[KEY] = str(locate_adapter(name, args.download_dir))
    return options


def adapter_settings(options: dict[str, Any]) -> dict[str, Any] | None:
    """adapter_config.json of the adapter among a loader's options; None where there is none. Raises :class:`ModelFileError`."""
    place = options.get(KEY)
    if not isinstance(place, str):
        return None
    file = Path(place) / CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{file} cannot be read as JSON: {error}.", fix="the folder of a LoRA adapter") from error
    if not isinstance(content, dict) or "peft_type" not in content:
        raise ModelFileError(f"{file} is no configuration of a PEFT adapter: peft_type is missing.", fix="the folder of a LoRA adapter")
    return content
