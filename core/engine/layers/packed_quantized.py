"""Canonical quantized weights: integers and 8-bit floats with a scale per group. Formats become these; devices multiply them."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.plugin.contracts.packed import PackedWeight

#: Integers of that many bits.
RANGES = {4: (-8, 7), 8: (-128, 127)}


class GroupedInteger(PackedWeight):
    """weight[o, i] = scale[o, g] · value[o, i] + shift[o, g], where g = i // group.

    ``values``: 8 bits: int8 [outputs, inputs]. 4 bits: uint8 [outputs, ⌈inputs / 2⌉], two to a byte, each stored as
    value + 8, the even input in the low half. ``scale`` and ``shift``: floats [outputs, ⌈inputs / group⌉]; ``shift`` None:
    symmetric. A format with zero points z of unsigned values u has shift = scale · (2^(bits-1) - z).

    ``exclusive``: nobody else reads the tensors, a kernel may give their memory back. ``exact``: activations must not be
    rounded to 8 bits, though the device would be faster so.
    """

    layout = "grouped_int"

    def __init__(
        self, values: Tensor, scale: Tensor, shift: Tensor | None = None, *,
        bits: int, inputs: int, group: int, exclusive: bool = False, exact: bool = False,
    ) -> None:  # fmt: skip
        self.values, self.scale, self.shift = values, scale, shift
        self.bits, self.group = bits, group
        self.exclusive, self.exact = exclusive, exact
        self.outputs, self.inputs = len(values), inputs
        self._check()

    def _check(self) -> None:
        if self.bits not in RANGES:
            raise ValueError(f"bits is {self.bits}; it must be 4 or 8")
        wanted = (torch.uint8, -(-self.inputs // 2)) if self.bits == 4 else (torch.int8, self.inputs)
        if (self.values.dtype, self.values.shape[1]) != wanted:
            raise ValueError(f"values are {self.values.dtype} {list(self.values.shape)}; {wanted[1]} columns of {wanted[0]} are needed")
        groups = (self.outputs, -(-self.inputs // self.group))
        for name, tensor in (("scale", self.scale), ("shift", self.shift)):
            if tensor is not None and (tuple(tensor.shape) != groups or not tensor.is_floating_point()):
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; floats {list(groups)} are needed")

    @classmethod
    def of(
        cls, integers: Tensor, scale: Tensor, shift: Tensor | None = None, *, bits: int, group: int, exact: bool = False
    ) -> GroupedInteger:
        """From signed integers [outputs, inputs] in the range of ``bits``."""
        low, high = RANGES[bits]
        if integers.numel() and not low <= int(integers.min()) <= int(integers.max()) <= high:
            raise ValueError(f"{bits}-bit values must be in [{low}, {high}]")
        values = integers.to(torch.int8) if bits == 8 else pack_nibbles(integers)
        return cls(values, scale, shift, bits=bits, inputs=integers.shape[1], group=group, exclusive=True, exact=exact)

    @classmethod
    def quantize(cls, weight: Tensor, *, bits: int, group: int = 0, asymmetric: bool = False) -> GroupedInteger:
        """Round a dense weight [outputs, inputs] to nearest; ``group`` 0: one scale per output."""
        outputs, inputs = weight.shape
        group = group or inputs
        groups = -(-inputs // group)
        padded = torch.nn.functional.pad(weight.float(), (0, groups * group - inputs)).view(outputs, groups, group)
        low, high = RANGES[bits]
        if asymmetric:
            least, most = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)
            scale = ((most - least) / (high - low)).clamp(min=1e-10)
            shift = least - low * scale
            integers = ((padded - shift.unsqueeze(-1)) / scale.unsqueeze(-1)).round().clamp(low, high)
            return cls.of(integers.view(outputs, -1)[:, :inputs], scale, shift, bits=bits, group=group)
        scale = (padded.abs().amax(-1) / high).clamp(min=1e-10)
        integers = (padded / scale.unsqueeze(-1)).round().clamp(low, high)
        return cls.of(integers.view(outputs, -1)[:, :inputs], scale, bits=bits, group=group)

    def integers(self) -> Tensor:
        """The signed values, int8 [outputs, inputs]."""
        return self.values if self.bits == 8 else unpack_nibbles(self.values, self.inputs)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        groups = torch.arange(self.inputs, device=self.values.device) // self.group
        weight = self.integers().float() * self.scale.float()[:, groups]
        if self.shift is not None:
            weight += self.shift.float()[:, groups]
        return weight.to(dtype)

    def nbytes(self) -> int:
        """Bytes of values, scales and shifts."""
        return sum(part.nbytes for part in (self.values, self.scale, self.shift) if part is not None)


class ScaledFloat8(PackedWeight):
    """weight[o, i] = scale[o // rows, i // columns] · value[o, i] with values in float8_e4m3fn or float8_e5m2.

    ``scale``: floats [⌈outputs / rows⌉, ⌈inputs / columns⌉]. One scale in all: rows = outputs, columns = inputs; one per output:
    rows = 1, columns = inputs; blocks: both smaller. ``exclusive``: see :class:`GroupedInteger`.
    """

    layout = "scaled_float8"

    def __init__(self, values: Tensor, scale: Tensor, *, rows: int, columns: int, exclusive: bool = False) -> None:
        self.values, self.scale = values, scale
        self.rows, self.columns = rows, columns
        self.exclusive = exclusive
        self.outputs, self.inputs = values.shape
        if values.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
            raise ValueError(f"values are {values.dtype}; float8_e4m3fn or float8_e5m2 is needed")
        wanted = (-(-self.outputs // rows), -(-self.inputs // columns))
        if tuple(scale.shape) != wanted:
            raise ValueError(f"scale has shape {list(scale.shape)}; {list(wanted)} is needed")

    def expanded_scale(self) -> Tensor:
        """float32 [outputs, ⌈inputs / columns⌉]."""
        return self.scale.float()[torch.arange(self.outputs, device=self.scale.device) // self.rows]

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        columns = torch.arange(self.inputs, device=self.values.device) // self.columns
        return (self.values.float() * self.expanded_scale()[:, columns]).to(dtype)

    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scale.nbytes


def pack_nibbles(integers: Tensor) -> Tensor:
    """Integers in [-8, 7], [outputs, inputs] → uint8 [outputs, ⌈inputs / 2⌉] as :class:`GroupedInteger` keeps them."""
    unsigned = torch.nn.functional.pad((integers + 8).to(torch.uint8), (0, integers.shape[1] % 2), value=8)
    return unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)


def unpack_nibbles(values: Tensor, inputs: int) -> Tensor:
    """The inverse of :func:`pack_nibbles`: int8 [outputs, inputs]."""
    both = torch.stack((values & 15, values >> 4), -1).flatten(1)
    return both[:, :inputs].to(torch.int8) - 8
