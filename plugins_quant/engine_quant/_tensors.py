"""Checks and joins of the tensors that a format collects: every complaint names tensor, expected and found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.plugin import LinearShape


def titles(layer: LinearShape, suffix: str) -> str:
    """The tensor's name in the checkpoint; of a fused layer the names of its parts' tensors."""
    return ", ".join(repr(f"{name}.{suffix}") for name in layer.parts or (layer.name,))


def plain(dtype: torch.dtype) -> str:
    """A dtype as checkpoints spell it."""
    return str(dtype).removeprefix("torch.")


def damaged(layer: LinearShape, suffix: str, found: str, wanted: str) -> ModelFileError:
    """The error for a tensor that is not what the format says."""
    return ModelFileError(
        f"Tensor {titles(layer, suffix)} {found}; the quantization_config asks for {wanted}.",
        fix="check that config.json and the weight files belong together",
    )


def require(layer: LinearShape, tensors: Mapping[str, Tensor], suffix: str) -> Tensor:
    """The tensor of that suffix, which must be there."""
    if suffix not in tensors:
        raise damaged(layer, suffix, "is missing", "it")
    return tensors[suffix]


def require_one(layer: LinearShape, tensors: Mapping[str, Tensor], suffixes: Sequence[str]) -> tuple[str, Tensor]:
    """The first of several spellings of a tensor that is there."""
    for suffix in suffixes:
        if suffix in tensors:
            return suffix, tensors[suffix]
    raise damaged(layer, suffixes[0], "is missing", "it")


def check(
    layer: LinearShape, suffix: str, tensor: Tensor, shape: Sequence[int] | None = None, dtypes: Sequence[torch.dtype] = ()
) -> Tensor:
    """The tensor itself, where it has that shape and one of those dtypes."""
    if dtypes and tensor.dtype not in dtypes:
        raise damaged(layer, suffix, f"holds {plain(tensor.dtype)}", " or ".join(map(plain, dtypes)))
    if shape is not None and list(tensor.shape) != list(shape):
        raise damaged(layer, suffix, f"has shape {list(tensor.shape)}", str(list(shape)))
    return tensor


def sizes_of(layer: LinearShape) -> tuple[int, ...]:
    """Outputs of each part, as this rank holds them."""
    return layer.sizes if layer.sizes and sum(layer.sizes) == layer.outputs else (layer.outputs,)


def per_part(layer: LinearShape, suffix: str, tensor: Tensor, *, integers: bool = False) -> Tensor:
    """One number for the whole layer, or one per part: float32 [1] or [parts]. ``integers``: they are zero points, else scales."""
    if tensor.is_floating_point() is integers or tensor.dtype == torch.bool:
        raise damaged(layer, suffix, f"holds {plain(tensor.dtype)}", "integers" if integers else "floats")
    values = tensor.detach().float().reshape(-1)
    if values.numel() not in (1, len(sizes_of(layer))):
        raise damaged(layer, suffix, f"has shape {list(tensor.shape)}", "one number per layer")
    if not bool(torch.isfinite(values).all()):
        raise damaged(layer, suffix, "holds a number that is not finite", "a finite scale")
    return values[:1] if bool((values == values[0]).all()) else values


def per_output(layer: LinearShape, suffix: str, tensor: Tensor, *, integers: bool = False) -> Tensor:
    """The numbers of :func:`per_part` for every output: float32 [outputs]."""
    values = per_part(layer, suffix, tensor, integers=integers)
    if len(values) == 1:
        return values.expand(layer.outputs).contiguous()
    return values.repeat_interleave(torch.tensor(sizes_of(layer), device=values.device))


def part_of(layer: LinearShape, index: int) -> LinearShape:
    """One part of a fused layer as a layer of its own."""
    names, size = layer.parts, sizes_of(layer)[index]
    return LinearShape(names[index] if len(names) > index else layer.name, layer.inputs, size, experts=layer.experts)
