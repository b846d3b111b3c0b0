"""Canonical integers with a scale per group: 2 to 8 bits, truly packed. Formats become these; devices multiply them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.packed_rounding import round_to_integers, row_slices
from engine.plugin.contracts.packed import PackedWeight

#: Bits of an integer → widths of the planes that hold them, lowest bits first.
PLANES: dict[int, tuple[int, ...]] = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}


class GroupedInteger(PackedWeight):
    """weight[o, i] = scale[o, g] · value[o, i] + shift[o, g], where g = i // group.

    ``values``: 8 bits: int8 [outputs, inputs]. Fewer: uint8 [outputs, :func:`row_bytes`], each value v stored as
    u = v + 2^(bits-1) in *planes*, one after the other within a row: 4 bits are one plane of 4-bit fields; 2 bits one of 2-bit
    fields; 3 bits a plane with the low 2 bits, then one with the third; 5 and 6 bits a plane with the low 4 bits, then one with
    the upper 1 or 2. Every plane fills its bytes from the lowest bits upwards in the order of the inputs (of 4-bit fields the
    even input is the low half) and ends at a whole byte. ``scale`` and ``shift``: floats [outputs, ⌈inputs / group⌉]; ``shift``
    None: symmetric. A format with zero points z of unsigned values u has shift = scale · (2^(bits-1) - z).

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
        if self.bits != 8 and self.bits not in PLANES:
            raise ValueError(f"bits is {self.bits}; it must be 1 to 8")
        if self.group < 1:
            raise ValueError(f"group is {self.group}; it must be positive")
        wanted = (torch.int8 if self.bits == 8 else torch.uint8, row_bytes(self.bits, self.inputs))
        if self.values.dim() != 2 or (self.values.dtype, self.values.shape[1]) != wanted:
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
        low, high = value_range(bits)
        if integers.numel() and not low <= int(integers.min()) <= int(integers.max()) <= high:
            raise ValueError(f"{bits}-bit values must be in [{low}, {high}]")
        values = integers.to(torch.int8) if bits == 8 else pack_planes(integers, bits)
        return cls(values, scale, shift, bits=bits, inputs=integers.shape[1], group=group, exclusive=True, exact=exact)

    @classmethod
    def quantize(
        cls, weight: Tensor, *, bits: int, group: int = 0, asymmetric: bool = False, scale_dtype: torch.dtype | None = None,
        search: bool = False,
    ) -> GroupedInteger:  # fmt: skip
        """Round a dense weight [outputs, inputs] to nearest, ``bits`` ≥ 2; ``group`` 0: one scale per output.

        ``scale_dtype`` (None: float32) and ``search``: see :func:`engine.layers.packed_rounding.round_to_integers`.
        """
        low, high = value_range(bits)
        if high < 1:
            raise ValueError(f"bits is {bits}; rounding needs 2 to 8")
        outputs, inputs = weight.shape
        group = group or inputs
        kind = torch.int8 if bits == 8 else torch.uint8
        values = torch.empty(outputs, row_bytes(bits, inputs), dtype=kind, device=weight.device)
        scale = torch.empty(outputs, -(-inputs // group), dtype=scale_dtype or torch.float32, device=weight.device)
        shift = torch.empty_like(scale) if asymmetric else None
        for rows in row_slices(outputs, inputs):
            part = round_to_integers(weight[rows], low, high, group, asymmetric=asymmetric, scale_dtype=scale_dtype, search=search)
            values[rows] = part.integers if bits == 8 else pack_planes(part.integers, bits)
            scale[rows] = part.scale
            if shift is not None and part.shift is not None:
                shift[rows] = part.shift
        return cls(values, scale, shift, bits=bits, inputs=inputs, group=group, exclusive=True)

    def integers(self) -> Tensor:
        """The signed values, int8 [outputs, inputs]."""
        return self.values if self.bits == 8 else unpack_planes(self.values, self.inputs, self.bits)

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        values = self.values[which]
        weight = (values if self.bits == 8 else unpack_planes(values, self.inputs, self.bits)).float()
        groups = torch.arange(self.inputs, device=values.device) // self.group
        weight *= self.scale[which].float()[:, groups]
        if self.shift is not None:
            weight += self.shift[which].float()[:, groups]
        return weight.to(dtype)

    def nbytes(self) -> int:
        """Bytes of values, scales and shifts."""
        return sum(part.nbytes for part in (self.values, self.scale, self.shift) if part is not None)


def value_range(bits: int) -> tuple[int, int]:
    """The least and the largest signed integer of that many bits. Raises ValueError."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits is {bits}; it must be 1 to 8")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def row_bytes(bits: int, inputs: int) -> int:
    """Bytes of one output's values in :class:`GroupedInteger`."""
    return inputs if bits == 8 else sum(-(-inputs * width // 8) for width in PLANES[bits])


def pack_planes(integers: Tensor, bits: int) -> Tensor:
    """Signed integers [outputs, inputs] → uint8 [outputs, row_bytes] as :class:`GroupedInteger` keeps ``bits`` < 8; padded with 0."""
    unsigned = (integers + (1 << (bits - 1))).to(torch.uint8)
    packed, done = [], 0
    for width in PLANES[bits]:
        packed.append(pack_fields((unsigned >> done) & ((1 << width) - 1), width))
        done += width
    return packed[0] if len(packed) == 1 else torch.cat(packed, 1)


def unpack_planes(values: Tensor, inputs: int, bits: int) -> Tensor:
    """The inverse of :func:`pack_planes`: int8 [outputs, inputs]."""
    unsigned = torch.zeros((len(values), inputs), dtype=torch.uint8, device=values.device)
    start = done = 0
    for width in PLANES[bits]:
        size = -(-inputs * width // 8)
        unsigned |= unpack_fields(values[:, start : start + size], inputs, width) << done
        start, done = start + size, done + width
    return unsigned.to(torch.int8) - (1 << (bits - 1))


def pack_fields(fields: Tensor, width: int) -> Tensor:
    """uint8 fields of ``width`` (1, 2 or 4) bits [rows, n] → bytes [rows, ⌈n · width / 8⌉], the first field in the lowest bits."""
    each = 8 // width
    padded = functional.pad(fields, (0, -fields.shape[1] % each)).view(len(fields), -1, each)
    packed = padded[..., 0].clone()
    for index in range(1, each):
        packed |= padded[..., index] << (index * width)
    return packed


def unpack_fields(packed: Tensor, count: int, width: int) -> Tensor:
    """The inverse of :func:`pack_fields`: uint8 [rows, count]."""
    parts = [(packed >> shift) & ((1 << width) - 1) for shift in range(0, 8, width)]
    return torch.stack(parts, -1).flatten(1)[:, :count]


def pack_nibbles(integers: Tensor) -> Tensor:
    """Integers in [-8, 7], [outputs, inputs] → uint8 [outputs, ⌈inputs / 2⌉] as :class:`GroupedInteger` keeps them."""
    return pack_planes(integers, 4)


def unpack_nibbles(values: Tensor, inputs: int) -> Tensor:
    """The inverse of :func:`pack_nibbles`: int8 [outputs, inputs]."""
    return unpack_planes(values, inputs, 4)
