"""Numbers that no quantized weight holds: not finite, or beyond any model's. A damaged file says so while it is loaded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.config import LARGEST_NUMBER
from engine.layers.packed_quantized import (
    AdditiveCodebooks,
    Codebook,
    GroupedInteger,
    RoundedInputs,
    RowBlocks,
    ScaledFloat8,
    ScaledInputs,
    SharedScales,
    Sparse24,
)
from engine.plugin.contracts.packed import PackedWeight

#: The largest byte of a finite 8-bit float: without its sign, and as it is.
_FINITE_BYTES = {torch.float8_e4m3fn: (0x7E, 0xFE), torch.float8_e5m2: (0x7B, 0xFB), torch.float8_e8m0fnu: (0x7F, 0xFE)}
#: The floats of the layouts, by their attributes.
_FLOATS: dict[type[PackedWeight], tuple[str, ...]] = {
    GroupedInteger: ("scale", "shift"), Codebook: ("scale", "outer", "table"), ScaledFloat8: ("scale",),
    AdditiveCodebooks: ("codebooks", "scales"), SharedScales: ("scale", "zero"), ScaledInputs: ("factor",),
}  # fmt: skip
#: Blocks whose scales are looked at together.
_AT_ONCE = 1 << 16


def is_sound(tensor: Tensor) -> bool:
    """Whether every number is finite and of sensible size; integers are. One pass, no memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype in _FINITE_BYTES:
        # The sign is the highest bit: signed bytes see the positive numbers' largest, unsigned ones the negative ones'.
        positive, negative = _FINITE_BYTES[tensor.dtype]
        return int(tensor.view(torch.int8).amax()) <= positive and int(tensor.view(torch.uint8).amax()) <= negative
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    least, most = (float(each) for each in torch.aminmax(wide))
    return least >= -LARGEST_NUMBER and most <= LARGEST_NUMBER


def check_numbers(name: str, tensor: Tensor) -> None:
    """Raises :class:`ModelFileError` for a checkpoint tensor of a quantized weight that is not sound."""
    if not is_sound(tensor):
        raise ModelFileError(
            f"Tensor {name!r} holds {_unsound(tensor)}; every number of a quantized weight must be finite and at most {LARGEST_NUMBER:g}.",
            fix="a sound copy of the file",
        )


def check_packed(packed: PackedWeight) -> None:
    """Raises ValueError for a packed weight whose scales, as they came of the checkpoint's numbers, are not sound."""
    for name, tensor in _scales(packed):
        if not is_sound(tensor):
            raise ValueError(f"{name} holds {_unsound(tensor)}; it must be finite and at most {LARGEST_NUMBER:g}")


def _unsound(tensor: Tensor) -> str:
    wide = tensor.flatten().float()
    return f"the number {float(wide[~(wide.abs() <= LARGEST_NUMBER)][0]):g}"


def _scales(packed: PackedWeight) -> Iterator[tuple[str, Tensor]]:
    """The floats of a packed weight, by what they are."""
    names = next((names for kind, names in _FLOATS.items() if isinstance(packed, kind)), ())
    if isinstance(packed, RowBlocks) and packed.kind.scales is not None:
        # Some blocks at a time: what is unpacked must stay small beside the weight.
        blocks = torch.split(packed.rows.reshape(-1, packed.kind.nbytes), _AT_ONCE)
        yield from ((f"a scale of {packed.kind.name}", packed.kind.scales(each)) for each in blocks)
    elif isinstance(packed, RoundedInputs) and packed.rounding.scale is not None:
        yield "scale of the activations", packed.rounding.scale
    yield from ((name, tensor) for name in names if (tensor := getattr(packed, name)) is not None)
    inner = [packed.kept] if isinstance(packed, Sparse24) else getattr(packed, "parts", None) or [getattr(packed, "inner", None)]
    for part in inner:
        if part is not None:
            yield from _scales(part)
