"""A loaded network as named tensors and back: one rank's finished layers, whatever checkpoint they came from.

A layer's tensors are named after it as the engine has it (``model.layers.0.self_attn.qkv_proj``, fused). A plain weight is
``<layer>.weight``; a packed one is the tensors that its canonical layout is made of, with the layout itself in ``LAYOUTS``, JSON as bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ConfigError, ModelFileError
from engine.layers.embedding import LMHead, VocabParallelEmbedding
from engine.layers.linear import Linear
from engine.layers.loading import CheckpointLayer
from engine.layers.packed import DensePacked
from engine.layers.state_layout import rebuild, take_apart
from engine.plugin.contracts.packed import LinearKernel, PackedWeight

#: The tensor that holds the layouts of packed weights: a JSON object by layer name, UTF-8 in uint8.
LAYOUTS = "engine.layouts"
_FIX = "save it again with engine save-sharded"


class KeptWeight(LinearKernel):
    """In place of a device's kernel, where a network is built to be saved: the packed weight stays as it is."""

    def __init__(self, packed: PackedWeight) -> None:
        self.packed = packed

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Not meant to run."""
        raise RuntimeError("this network was built to be saved, not to run")


def export_state(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a network that was built with :class:`KeptWeight` kernels, loaded and finished; ``LAYOUTS`` comes last.

    Tensors may share storage. Raises :class:`ConfigError` for a layout that only its own file format can rebuild.
    """
    layouts: dict[str, Any] = {}
    for name, layer in owners(root).items():
        packed = _packed(layer)
        if isinstance(packed, DensePacked):
            yield f"{name}.weight", packed.weight
        elif packed is not None:
            layouts[name], tensors = take_apart(packed, name)
            yield from tensors.items()
        for attribute, tensor in _plain(layer):
            yield f"{name}.{attribute}", tensor
    if layouts:
        yield LAYOUTS, torch.frombuffer(bytearray(json.dumps(layouts).encode()), dtype=torch.uint8)


def owners(root: nn.Module) -> dict[str, CheckpointLayer]:
    """The layers that hold tensors, by name; a tied head holds none."""
    found: dict[str, CheckpointLayer] = {}
    for path, module in root.named_modules():
        if not isinstance(module, CheckpointLayer) or (isinstance(module, LMHead) and module.tied):
            continue
        name = module.shape.name if isinstance(module, Linear) else str(getattr(module, "name", path))
        owns = any(True for _ in _plain(module)) or _packed(module) is not None or _collects(module)
        if owns or isinstance(module, Linear | VocabParallelEmbedding):
            if name in found:
                raise ConfigError(f"Two layers are called {name!r}, so this network's state has no names.", fix="--load-format auto")
            found[name] = module
    return found


def restore_state(root: nn.Module, tensors: Iterable[tuple[str, Tensor]], names: Iterable[str]) -> set[str]:
    """Give every layer its tensors and finish it; ``names``: all that will come. Returns the names of layers that got none.

    A tensor smaller than the layer's goes into its leading part. Raises :class:`ModelFileError` for tensors without a layer and
    for those that do not fit.
    """
    layers = owners(root)
    waiting: dict[str, set[str]] = {}
    for name in names:
        if name != LAYOUTS:
            waiting.setdefault(_owner(name, layers), set()).add(name)
    layouts: dict[str, Any] | None = {} if LAYOUTS not in set(names) else None
    held: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        if name == LAYOUTS:
            layouts = _read_layouts(tensor)
            for owner in [owner for owner, missing in waiting.items() if not missing and owner in held]:
                _restore(owner, layers[owner], held.pop(owner), layouts.get(owner))
            continue
        owner = _owner(name, layers)
        held.setdefault(owner, {})[name] = tensor
        waiting[owner].discard(name)
        if not waiting[owner] and layouts is not None:
            _restore(owner, layers[owner], held.pop(owner), layouts.get(owner))
    return {name for name in layers if name not in waiting} | set(held)


def _owner(name: str, layers: dict[str, CheckpointLayer]) -> str:
    prefix = name
    while prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix in layers:
            return prefix
    raise ModelFileError(f"The saved state has a tensor {name!r} that belongs to no layer of this network.", fix=_FIX)


def _packed(layer: CheckpointLayer) -> PackedWeight | None:
    if isinstance(layer, VocabParallelEmbedding):
        return layer.packed
    kernel = getattr(layer, "kernel", None)
    return kernel.packed if isinstance(kernel, KeptWeight) else None


def _collects(layer: CheckpointLayer) -> bool:
    return bool(getattr(layer, "collected", None))


def _plain(layer: CheckpointLayer) -> Iterator[tuple[str, Tensor]]:
    """The layer's own tensors: attributes, parameters and buffers."""
    for source in (vars(layer), layer._parameters, layer._buffers):
        for attribute, value in source.items():
            if isinstance(value, Tensor):
                yield attribute, value


def _restore(name: str, layer: CheckpointLayer, tensors: dict[str, Tensor], layout: Any) -> None:
    plain = dict(_plain(layer))
    vocabulary = isinstance(layer, VocabParallelEmbedding | LMHead)
    packed: PackedWeight | None = None
    if layout is not None:
        device = layer.context.device if isinstance(layer, Linear | VocabParallelEmbedding) else torch.device("cpu")
        packed, used = rebuild(layout, tensors, name, device)
        tensors = {key: value for key, value in tensors.items() if key not in used}
    elif f"{name}.weight" in tensors and isinstance(layer, Linear | VocabParallelEmbedding):
        layer.hold_plain(_fitted(f"{name}.weight", tensors.pop(f"{name}.weight"), layer, padded=vocabulary))
    for key, tensor in tensors.items():
        target = plain.get(key.removeprefix(f"{name}."))
        if target is None:
            raise ModelFileError(f"The saved state has a tensor {key!r}, for which {name!r} has no place.", fix=_FIX)
        _copy_leading(key, tensor, target, padded=vocabulary)
    if packed is not None:
        _hand_over(name, layer, packed)
    layer.finish_once()


def _hand_over(name: str, layer: CheckpointLayer, packed: PackedWeight) -> None:
    if not isinstance(layer, Linear | VocabParallelEmbedding):
        raise ModelFileError(f"The saved state has a packed weight for {name!r}, which is no linear layer.", fix=_FIX)
    wanted = _wanted(layer)
    if (packed.outputs, packed.inputs) != wanted:
        raise ModelFileError(
            f"The saved weight of {name!r} is [{packed.outputs}, {packed.inputs}], but the configuration asks for {list(wanted)}.", fix=_FIX
        )
    layer.collected, layer.finished = (), True
    if isinstance(layer, Linear):
        layer.kernel = layer.context.kernel(packed)
    else:
        layer.hold(packed)


def _wanted(layer: Linear | VocabParallelEmbedding) -> tuple[int, int]:
    return (layer.outputs, layer.inputs.size) if isinstance(layer, Linear) else (layer.share.size, layer.size)


def _fitted(name: str, tensor: Tensor, layer: Linear | VocabParallelEmbedding, *, padded: bool) -> Tensor:
    """The tensor itself where its shape is the layer's, else one of that shape with the tensor in its leading part."""
    wanted = _wanted(layer)
    if tuple(tensor.shape) == wanted:
        return tensor
    target = tensor.new_zeros(wanted)
    _copy_leading(name, tensor, target, padded=padded)
    return target


def _copy_leading(name: str, tensor: Tensor, target: Tensor, *, padded: bool) -> None:
    if padded and tensor.dim() == target.dim() and tensor.shape[0] > target.shape[0]:
        tensor = tensor.narrow(0, 0, target.shape[0])  # rows that pad the vocabulary
    if tensor.dim() != target.dim() or any(have > room for have, room in zip(tensor.shape, target.shape, strict=True)):
        raise ModelFileError(f"Tensor {name!r} has shape {list(tensor.shape)}, but its layer has {list(target.shape)}.", fix=_FIX)
    target[tuple(slice(0, extent) for extent in tensor.shape)].copy_(tensor)


def _read_layouts(tensor: Tensor) -> dict[str, Any]:
    try:
        found = json.loads(bytes(tensor.cpu().numpy().tobytes()))
    except (ValueError, RecursionError, TypeError) as error:
        raise ModelFileError(f"The saved state's {LAYOUTS} is no JSON object: {error}.", fix=_FIX) from error
    if not isinstance(found, dict):
        raise ModelFileError(f"The saved state's {LAYOUTS} is no JSON object.", fix=_FIX)
    return found
