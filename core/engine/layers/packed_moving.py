"""Copies of packed weights whose tensors are others: in another place, or none at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from torch import Tensor

from engine.plugin.contracts.packed import PackedWeight


def moved(packed: PackedWeight, move: Callable[[Tensor], Tensor]) -> PackedWeight:
    """A copy of the same layout in which each tensor is ``move`` of it; shape and dtype must stay.

    Tensors are met in an order that depends on the layout alone. Nothing is checked again, so nothing waits for the device. Kernels
    must not give the copy's memory back.
    """
    return cast("PackedWeight", _moved(packed, move))


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, PackedWeight):
        made = copy.copy(value)
        for name, part in vars(value).items():
            setattr(made, name, _moved(part, move))
        if hasattr(made, "exclusive"):
            made.exclusive = False
        return made
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, move) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), move) for field in fields(value)})
    return value
