"""A low-rank adapter of PEFT beside the weights that it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import ModelFileError
from engine.plugin import Loader, TensorInfo

from ._safetensors import SafetensorsFiles

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
#: More than any rank or alpha.
_LARGEST = 1e6
_TENSOR = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
#: Keys of adapter_config.json that change what the adapter computes, with the values that are read.
_ONLY: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("peft_type", ("LORA",)), ("use_dora", (False, None)), ("bias", ("none", None)), ("fan_in_fan_out", (False, None)),
    ("modules_to_save", (None, [])),
)  # fmt: skip


class Adapter:
    """``lora_A`` and ``lora_B`` of each layer under the model's own names, the scaling multiplied into ``lora_B``."""

    def __init__(self, place: Path) -> None:
        self.file = place / CONFIG
        self._files = SafetensorsFiles([place / WEIGHTS])
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFileError(f"{self.file} cannot be read as JSON: {error}.", fix="the folder of a LoRA adapter") from error
        if not (place / WEIGHTS).is_file():
            raise ModelFileError(f"{place} has no {WEIGHTS}.", fix="save the adapter with safe_serialization")
        self.config: dict[str, Any] = content if isinstance(content, dict) else {}
        for key, values in _ONLY:
            if self.config.get(key, values[0]) not in values:
                self._refuse(key, self.config[key], json.dumps(values[0]))

    def describe(self) -> list[TensorInfo]:
        """Headers alone."""
        return [TensorInfo(self._name(info.name), info.dtype, info.shape, info.nbytes, info.file) for info in self._files.describe()]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Scaled, in float32 where that changes them."""
        for name, tensor in self._files.tensors():
            own = self._name(name)
            scaling = self._scaling(own.rpartition(".lora_")[0]) if ".lora_B." in own else 1.0
            yield own, tensor if scaling == 1.0 else tensor.float() * scaling

    def _name(self, stored: str) -> str:
        match = _TENSOR.fullmatch(stored.removeprefix(_PREFIX))
        if match is None:
            raise ModelFileError(f"{self.file.parent / WEIGHTS}: tensor {stored!r} is no lora_A or lora_B of a linear layer.")
        return f"{match['layer']}.lora_{match['side']}.weight"

    def _scaling(self, layer: str) -> float:
        rank = self._number(layer, "rank_pattern", "r")
        return self._number(layer, "alpha_pattern", "lora_alpha") / (sqrt(rank) if self.config.get("use_rslora") is True else rank)

    def _number(self, layer: str, patterns: str, key: str) -> float:
        """A layer's own number, by the first pattern that its name ends with, or the one for all."""
        table = self.config.get(patterns) or {}
        if not isinstance(table, dict):
            self._refuse(patterns, table, "an object")
        found = self.config.get(key)
        for pattern, own in table.items():
            try:
                if re.fullmatch(rf"(.*\.)?({pattern})", layer):
                    key, found = f"{patterns}.{pattern}", own
                    break
            except re.error as error:
                raise ModelFileError(f"{self.file}: {patterns} has {pattern!r}, which is no regular expression: {error}.") from error
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < _LARGEST:
            self._refuse(key, found, "a positive number")
        return float(found)

    def _refuse(self, key: str, value: Any, wanted: str) -> NoReturn:
        raise ModelFileError(f"{self.file}: {key} is {value!r:.200}; it must be {wanted}.", fix="merge the adapter into the model")


class AdaptedLoader(Loader):
    """The adapter's tensors, then the base model's: no layer has to wait for its addition."""

    def __init__(self, base: Loader, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter

    def describe(self) -> list[TensorInfo]:
        """Of both."""
        return [*self._adapter.describe(), *self._base.describe()]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Of both."""
        yield from self._adapter.tensors()
        yield from self._base.tensors()

    def close(self) -> None:
        """Close the base's files."""
        self._base.close()
