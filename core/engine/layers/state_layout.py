"""Canonical packed weights as plain values and tensors, and back."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import ConfigError, ModelFileError
from engine.layers.contents import check_packed
from engine.layers.packed import DensePacked
from engine.layers.packed_additive import AdditiveCodebooks
from engine.layers.packed_codebook import Codebook
from engine.layers.packed_composite import Adapted, Joined, Permuted, RoundedInputs, ScaledInputs
from engine.layers.packed_float8 import ScaledFloat8
from engine.layers.packed_integer import GroupedInteger
from engine.layers.packed_shared import SharedScales
from engine.layers.packed_sparse import Sparse24
from engine.layers.rounding import ActivationRounding
from engine.plugin.contracts.packed import PackedWeight

#: What can be rebuilt, by the name under which it is written; each one's constructor takes its attributes.
_KNOWN: dict[str, type] = {
    made.__name__: made
    for made in (
        ActivationRounding, Adapted, AdditiveCodebooks, Codebook, DensePacked, GroupedInteger, Joined, Permuted, RoundedInputs,
        ScaledFloat8, ScaledInputs, SharedScales, Sparse24,
    )
}  # fmt: skip
_DEEPEST = 8
_FIX = "save it again with engine save-sharded"


def take_apart(packed: PackedWeight, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The layout as JSON values, and its tensors under ``name``. Raises :class:`ConfigError` for one that is not canonical."""
    tensors: dict[str, Tensor] = {}
    return _written(packed, name, tensors), tensors


def _written(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, tuple | list):
        return [_written(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    if _KNOWN.get(kind) is not type(value):
        raise ConfigError(
            f"The weight {name!r} is kept as {kind}, which only its own file format can read.", fix="serve the original file itself"
        )
    fields = [field for field in inspect.signature(type(value)).parameters if field != "exclusive"]
    return {"class": kind} | {field: _written(getattr(value, field), f"{name}.{field}", tensors) for field in fields}


def rebuild(layout: Any, tensors: dict[str, Tensor], name: str, device: torch.device) -> tuple[PackedWeight, set[str]]:
    """The packed weight, and the names of the tensors in it. Raises :class:`ModelFileError`."""
    used: set[str] = set()
    try:
        made = _read(layout, tensors, used, device, 0)
        if isinstance(made, PackedWeight):
            check_packed(made)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        # layouts check their own tensors; what they raise says what was expected
        raise ModelFileError(f"The saved layout of {name!r} cannot be rebuilt: {error}.", fix=_FIX) from error
    if not isinstance(made, PackedWeight):
        raise ModelFileError(f"The saved layout of {name!r} is no packed weight.", fix=_FIX)
    return made, used


def _read(value: Any, tensors: dict[str, Tensor], used: set[str], device: torch.device, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"layouts are nested more than {_DEEPEST} deep")
    if isinstance(value, list):
        return tuple(_read(item, tensors, used, device, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        used.add(value["tensor"])
        # a copy: kernels may give an exclusive weight's memory back, which a mapped file's is not
        return tensors[value["tensor"]].to(device, copy=True)
    if "dtype" in value:
        found = getattr(torch, str(value["dtype"]), None)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{value['dtype']!r} is no dtype")
        return found
    kind = _KNOWN[value["class"]]
    fields = {key: _read(item, tensors, used, device, depth + 1) for key, item in value.items() if key != "class"}
    parameters = inspect.signature(kind).parameters
    if "exclusive" in parameters and not is_dataclass(kind):
        fields["exclusive"] = True
    # positional-only and keyword-only alike are filled by name
    return kind(**fields)
