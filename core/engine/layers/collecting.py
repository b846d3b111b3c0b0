"""Gathers the tensors that a quantization format keeps for a layer, cuts and joins them, and has them packed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.contents import check_numbers, check_packed
from engine.layers.loading import Slot
from engine.layers.packed import DensePacked
from engine.layers.packed_share import take_share
from engine.layers.shards import Part, Piece, common_unit, cut, spread
from engine.plugin.contracts.model import ModelContext
from engine.plugin.contracts.packed import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

_BELONG = "check that config.json and the weight files belong together"


class PlainFormat(WeightFormat):
    """A part that is not quantized, in a layer whose other parts are."""

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The weight."""
        return (CheckpointTensor("weight", 0, 1, plain=True),)

    def pack(self, layer: LinearShape, tensors: dict[str, Tensor], dtype: torch.dtype) -> PackedWeight:  # type: ignore[override]
        """The weight itself."""
        return DensePacked(tensors["weight"])


class Collected:
    """The raw tensors of ``parts`` of a layer, all kept in one ``format``: taken one by one, packed once, then let go.

    Parts are joined along the output axis; tensors without one are stacked [parts, …] where there are several parts.
    ``inputs``: those that this rank holds. ``transposed``: plain weights are [inputs, outputs] in the checkpoint.
    """

    def __init__(
        self, context: ModelContext, shape: LinearShape, parts: tuple[Part, ...], inputs: Piece, format: WeightFormat, transposed: bool
    ) -> None:
        self.context, self.shape, self.parts, self.inputs = context, shape, parts, inputs
        self.format, self.transposed = format, transposed
        self.specs = format.tensors()
        self.held: dict[tuple[str, int], Tensor] = {}

    def slots(self, index: int) -> Iterator[Slot]:
        """What part ``index`` wants."""
        return (self._slot(self.parts[index], index, spec) for spec in self.specs)

    def plain_slot(self, index: int) -> Slot | None:
        """The slot for part ``index``'s plain weight, where that is all that the format requires."""
        required = [spec for spec in self.specs if not spec.optional]
        return self._slot(self.parts[index], index, required[0]) if len(required) == 1 and required[0].plain else None

    def pack(self) -> PackedWeight:
        """The packed weight. Raises :class:`ModelFileError` naming the layer where its tensors do not belong together."""
        outputs = tuple(piece.size for part in self.parts for piece in part.pieces)
        shape = msgspec.structs.replace(
            self.shape, inputs=self.inputs.size, outputs=sum(outputs), sizes=outputs if len(outputs) > 1 else self.shape.sizes
        )
        try:
            if self.format.whole:
                packed = self.format.pack(self.shape, self._joined(), self.context.dtype)
                packed = take_share(packed, [piece for part in self.parts for piece in part.pieces], self.inputs)
            else:
                packed = self.format.pack(shape, self._joined(), self.context.dtype)
            check_packed(packed)
        except ValueError as error:
            raise ModelFileError(
                f"The weight of {self.shape.name!r}{self._parts()} cannot be packed: {error}.",
                fix=_BELONG,
            ) from error
        self.held.clear()
        return packed

    def _check_alike(self, suffix: str, found: list[Tensor]) -> None:
        """Whether what the parts have of that suffix can be joined: all of it, floats or the same integers, shapes that fit."""
        names = [f"{part.name}.{suffix}" for part in self.parts]
        if len(found) != len(names):
            lacking = ", ".join(repr(name) for i, name in enumerate(names) if (suffix, i) not in self.held)
            raise ModelFileError(f"Tensor {lacking} is missing, which the other parts of {self.shape.name!r} have.", fix=_BELONG)
        kinds = {(each.dim(), "floats" if each.is_floating_point() and each.element_size() > 1 else each.dtype) for each in found}
        axis = next((spec.output_axis for spec in self.specs if spec.suffix == suffix), None)
        shapes = {tuple(size for i, size in enumerate(each.shape) if i != axis) for each in found}
        if len(kinds) > 1 or len(shapes) > 1:
            shown = ", ".join(f"{name!r} {_dtype(each)} {list(each.shape)}" for name, each in zip(names, found, strict=True))
            raise ModelFileError(f"The parts of {self.shape.name!r} cannot be joined: {shown}.", fix=_BELONG)

    def _parts(self) -> str:
        """The names that the checkpoint has for a fused layer."""
        return f" ({', '.join(repr(part.name) for part in self.parts)})" if len(self.parts) > 1 else ""

    def _slot(self, part: Part, index: int, spec: CheckpointTensor) -> Slot:
        name = f"{part.name}.{spec.suffix}"
        whole = (part.outputs, self.shape.inputs)
        turned = spec.plain and self.transposed
        alone = LinearShape(part.name, self.shape.inputs, part.outputs, experts=self.shape.experts, role=self.shape.role)

        def take(tensor: Tensor) -> None:
            tensor = tensor.t() if turned else self.format.unfold(alone, spec.suffix, tensor)
            if spec.output_axis is not None:
                axis, group, items = spec.output_axis, spec.output_group, spec.output_items
                if spec.spreads and (unit := common_unit(group, tuple((each.outputs, each.pieces) for each in self.parts))) < group:
                    tensor, group = spread(name, tensor, axis, part.outputs, group, unit), unit
                cuts = [cut(name, tensor, axis, piece, part.outputs, group, items) for piece in part.pieces]
                tensor = cuts[0] if len(cuts) == 1 else torch.cat(cuts, axis)
            if spec.input_axis is not None:
                axis, group, inputs = spec.input_axis, spec.input_group, self.shape.inputs
                if spec.spreads and (unit := common_unit(group, ((inputs, (self.inputs,)),))) < group:
                    tensor, group = spread(name, tensor, axis, inputs, group, unit), unit
                tensor = cut(name, tensor, axis, self.inputs, inputs, group, spec.input_items)
            if not spec.plain:
                check_numbers(name, tensor)
            # A plain weight is what a layer would hold: rounded to the activations' dtype before it is quantized.
            self.held[spec.suffix, index] = tensor.to(self.context.dtype) if spec.plain else tensor

        return Slot(name, (whole[::-1] if turned else whole) if spec.plain else None, take, optional=spec.optional, quick=True)

    def _joined(self) -> dict[str, Tensor]:
        joined: dict[str, Tensor] = {}
        for spec in self.specs:
            found = [self.held[spec.suffix, i] for i in range(len(self.parts)) if (spec.suffix, i) in self.held]
            if not found:
                continue
            self._check_alike(spec.suffix, found)
            whole = _join(found, spec.output_axis)
            joined[spec.suffix] = whole.to(self.context.device)
        return joined


def _join(found: list[Tensor], axis: int | None) -> Tensor:
    if len(found) == 1:
        return found[0]
    return torch.stack(found) if axis is None else torch.cat(found, axis)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
