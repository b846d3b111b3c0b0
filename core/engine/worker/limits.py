"""What a device can do at most, measured now: by itself where it can, else with torch; and what a model asks of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from engine.layers.linear import Linear
from engine.layers.moe import SparseMLP

if TYPE_CHECKING:
    from engine.plugin.contracts.device import Device
    from engine.plugin.contracts.model import Model

_READ_BYTES = 512 << 20
_SIDE = 2048
_SECONDS = 1.0


def measure_limits(device: Device, dtype: str) -> dict[str, float]:
    """See :meth:`engine.plugin.contracts.device.Device.limits`; with torch a sum over 512 MiB and a product of 2048 × 2048 matrices."""
    own = device.limits(dtype)
    if own:
        return own
    place = device.torch_device()
    buffer = torch.zeros(_READ_BYTES // 4, dtype=torch.float32, device=place)
    matrix = torch.ones(_SIDE, _SIDE, dtype=getattr(torch, dtype), device=place)
    reads = [_READ_BYTES / seconds for seconds in _passes(device, lambda: buffer.sum())]
    products = [2 * _SIDE**3 / seconds for seconds in _passes(device, lambda: matrix @ matrix)]
    return {
        "read_bytes": statistics.median(reads), "read_bytes_best": max(reads),
        "operations": statistics.median(products), "operations_best": max(products),
    }  # fmt: skip


def linear_work(model: Model, dtype: str) -> list[dict[str, Any]]:
    """``role``, ``elements``, ``read_bytes`` and ``arithmetic`` of every linear layer, by its parts (:class:`LinearWork`).

    A layer whose kernel cannot tell has ``kernel``, that kernel's name, instead of the last three. ``share`` is that of the rows that
    go through the layer: below 1 for experts.
    """
    found: list[dict[str, Any]] = []
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    shares = {id(layer): mixture.share for mixture in modules if isinstance(mixture, SparseMLP) for layer in mixture.experts()}
    for layer in modules:
        if not isinstance(layer, Linear) or layer.kernel is None:
            continue
        parts = layer.kernel.work(dtype)
        told = [{"elements": part.elements, "read_bytes": part.read_bytes, "arithmetic": part.arithmetic} for part in parts]
        for each in told or [{"kernel": type(layer.kernel).__name__}]:
            found.append({"role": layer.shape.role, "name": layer.shape.name, "share": shares.get(id(layer), 1.0), **each})
    return found


def _passes(device: Device, body: Callable[[], object]) -> list[float]:
    """Seconds of each call, the first left out."""
    body()
    device.synchronize()
    taken: list[float] = []
    while sum(taken) < _SECONDS or len(taken) < 3:
        began = time.perf_counter()
        body()
        device.synchronize()
        taken.append(time.perf_counter() - began)
    return taken
