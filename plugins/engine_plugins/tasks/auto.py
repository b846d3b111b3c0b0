"""Takes the first task that the model can do: transcription, generate, else a pooling task."""

from __future__ import annotations

from engine.errors import ModelFileError
from engine.plugin import ModelInfo, Use, hookimpl

ENGINE_API = 1
_ORDER = ("transcription", "generate", "embed", "classify", "score", "reward")


@hookimpl
def engine_create_task(info: ModelInfo) -> Use:
    for task in _ORDER:
        if task in info.tasks:
            return Use(task, f"{info.architecture} can {' and '.join(info.tasks)}")
    raise ModelFileError(
        f"{info.architecture} offers no task of {', '.join(_ORDER)} but {', '.join(info.tasks) or 'none'}."
    )
