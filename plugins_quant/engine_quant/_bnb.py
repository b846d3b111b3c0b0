"""Layers as bitsandbytes keeps them: 4-bit blocks over the flattened weight, 8-bit rows; and plain ones rounded the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor

from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import Adapted, Codebook, GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._bnb_tables import TABLES, round_doubly
from ._rows import RoundedRows
from ._tensors import check, damaged, require

_STATE = "weight.quant_state.bitsandbytes__"
_STATE_LIMIT = 65536
_DOWN, _UP = "lora_A.weight", "lora_B.weight"
_PLAIN = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class State:
    """What ``quant_state`` says: elements per scale, the weight's shape, and of doubly quantized scales their block and offset."""

    block: int
    shape: tuple[int, ...]
    nested_block: int = 0
    offset: float = 0.0


class FourBitFormat(WeightFormat):
    """``weight`` uint8 [N·K/2, 1]: codes of the flattened weight, the first of two in the HIGH half; scales (absmax) per block of them.

    Blocks run across outputs where a row is no multiple of them, so a rank's share cannot be cut from the file's tensors: every rank packs
    the whole layer. ``in_flight``: what becomes of a plain weight (None: it stays).
    ``storage``: the dtype as which the codes' bytes are stored.
    """

    whole = True

    def __init__(self, in_flight: WeightFormat | None, storage: str = "uint8") -> None:
        self.in_flight = in_flight
        self.storage: torch.dtype = getattr(torch, storage)

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The weight, its scales and their table; the state's name says which table it is."""
        extra = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
        states = tuple(CheckpointTensor(f"{_STATE}{kind}", optional=True) for kind in TABLES)
        return (CheckpointTensor("weight"), *(CheckpointTensor(f"weight.{name}", optional=True) for name in extra), *states)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Codes as the bytes that they are, whatever dtype they were stored as."""
        coded = suffix == "weight" and tensor.dtype == self.storage and tensor.nbytes == -(-part.outputs * part.inputs // 2)
        return tensor.reshape(-1).view(torch.uint8) if coded else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        weight = require(layer, tensors, "weight")
        if weight.dtype in _PLAIN:
            return _plain(self.in_flight, layer, weight, dtype)
        suffix = next((name for kind in TABLES if (name := f"{_STATE}{kind}") in tensors), f"{_STATE}nf4")
        state = read_state(layer, suffix, require(layer, tensors, suffix))
        outputs, inputs = layer.outputs, layer.inputs
        if state.shape != (outputs, inputs):
            raise damaged(layer, "weight", f"has the shape {list(state.shape)} in its quant_state", str([outputs, inputs]))
        check(layer, "weight", weight.reshape(-1), (outputs * inputs // 2 + outputs * inputs % 2,), (torch.uint8,))
        table = check(layer, "weight.quant_map", require(layer, tensors, "weight.quant_map"), (16,), (torch.float32,))
        scales = self._scales(layer, tensors, state, -(-outputs * inputs // state.block))
        own = gcd(state.block, inputs)
        spread = scales[torch.arange(0, outputs * inputs, own, device=scales.device) // state.block].view(outputs, -1)
        if inputs % 2 == 0:
            swapped = (weight.reshape(outputs, -1) << 4) | (weight.reshape(outputs, -1) >> 4)
            return Codebook(swapped, table.clone(), spread, bits=4, inputs=inputs, group=own, exclusive=True)
        codes = torch.stack((weight.flatten() >> 4, weight.flatten() & 15), 1).flatten()[: outputs * inputs]
        return Codebook.of(codes.view(outputs, inputs), table.clone(), spread, bits=4, group=own)

    def _scales(self, layer: LinearShape, tensors: Mapping[str, Tensor], state: State, count: int) -> Tensor:
        found = check(layer, "weight.absmax", require(layer, tensors, "weight.absmax").reshape(-1), (count,))
        if not state.nested_block:
            return check(layer, "weight.absmax", found, dtypes=(torch.float32,)).clone()
        check(layer, "weight.absmax", found, dtypes=(torch.uint8,))
        outer = require(layer, tensors, "weight.nested_absmax").reshape(-1)
        check(layer, "weight.nested_absmax", outer, (-(-count // state.nested_block),), (torch.float32,))
        table = check(layer, "weight.nested_quant_map", require(layer, tensors, "weight.nested_quant_map"), (256,), (torch.float32,))
        blocks = torch.arange(count, device=found.device) // state.nested_block
        return table[found.long()] * outer[blocks] + state.offset


class Int8Format(WeightFormat):
    """``weight`` int8 [N, K], ``SCB`` float32 [N]: weight · SCB / 127.

    Activations stay as they are, which is more exact than to round all but the outliers.
    """

    def __init__(self, in_flight: WeightFormat | None) -> None:
        self.in_flight = in_flight

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The weight, its rows' largest magnitudes, and a mark of its order, which is always the plain one."""
        scale, order = CheckpointTensor("SCB", 0, optional=True), CheckpointTensor("weight_format", optional=True)
        return (CheckpointTensor("weight", 0, 1), scale, order)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Rows in one column are rows."""
        column = suffix == "weight" and tuple(tensor.shape) == (part.outputs * part.inputs, 1)
        return tensor.view(part.outputs, part.inputs) if column else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        weight = require(layer, tensors, "weight")
        if weight.dtype in _PLAIN:
            return _plain(self.in_flight, layer, weight, dtype)
        check(layer, "weight", weight, (layer.outputs, layer.inputs), (torch.int8,))
        largest = check(layer, "SCB", require(layer, tensors, "SCB").reshape(-1), (layer.outputs,), (torch.float32,))
        return GroupedInteger(weight, (largest / 127).unsqueeze(1), bits=8, inputs=layer.inputs, group=layer.inputs, exact=True)


class InFlightFormat(WeightFormat):
    """A plain weight, rounded while loading: 8 bits per row, or a table's 4 bits in blocks of 64 elements of the flattened weight.

    ``lora_A.weight`` [rank, K] and ``lora_B.weight`` [N, rank] of a QLoRA adapter may come with it: they stay beside what was rounded.
    """

    def __init__(self, bits: int, kind: str, double: bool, *, adapted: bool = False) -> None:
        self.bits, self.kind, self.double, self.adapted = bits, kind, double, adapted

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The plain weight, and an adapter's."""
        adapter = (CheckpointTensor(_DOWN, None, 1, optional=True), CheckpointTensor(_UP, 0, None, optional=True))
        return (CheckpointTensor("weight", 0, 1, plain=True), *(adapter if self.adapted else ()))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract. Each part of a fused layer arrives here by itself."""
        packed = RoundedRows().pack(layer, tensors, dtype) if self.bits == 8 else self._rounded(tensors)
        if _DOWN not in tensors and _UP not in tensors:
            return packed
        down, up = require(layer, tensors, _DOWN), require(layer, tensors, _UP)
        check(layer, _DOWN, down, (len(down), layer.inputs), _PLAIN)
        check(layer, _UP, up, (layer.outputs, len(down)), _PLAIN)
        return Adapted(packed, down.to(dtype, copy=True), up.to(dtype, copy=True))

    def _rounded(self, tensors: Mapping[str, Tensor]) -> PackedWeight:
        weight = tensors["weight"].float()
        outputs, inputs = weight.shape
        table = torch.tensor(TABLES[self.kind], device=weight.device)
        flat = weight.flatten()
        blocks = torch.nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)
        largest = blocks.abs().amax(1)
        codes = nearest(blocks / largest.clamp(min=1e-30).unsqueeze(1), table).flatten()[: len(flat)].view(outputs, inputs)
        scales = round_doubly(largest) if self.double else largest
        own = gcd(64, inputs)
        spread = scales[torch.arange(0, len(flat), own, device=weight.device) // 64].view(outputs, -1)
        return Codebook.of(codes, table, spread, bits=4, group=own)


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """The code of the entry of ``table`` nearest to each value, int64."""
    ordered, codes = table.sort(stable=True)
    return codes[torch.bucketize(values, (ordered[1:] + ordered[:-1]) / 2)]


def read_state(layer: LinearShape, suffix: str, tensor: Tensor) -> State:
    """The JSON object in a quant_state's bytes."""
    check(layer, suffix, tensor, dtypes=(torch.uint8,))
    if tensor.numel() > _STATE_LIMIT:
        raise damaged(layer, suffix, f"has {tensor.numel()} bytes", f"at most {_STATE_LIMIT}")
    try:
        content: Any = json.loads(bytes(tensor.flatten().tolist()))
        shape = tuple(int(extent) for extent in content["shape"])
        nested = "nested_blocksize" in content
        state = State(
            int(content["blocksize"]), shape, int(content["nested_blocksize"]) if nested else 0, float(content.get("nested_offset", 0.0))
        )
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        wanted = "a JSON object with blocksize and shape"
        raise damaged(layer, suffix, f"cannot be read ({type(error).__name__}: {error})", wanted) from error
    if state.block < 1 or state.nested_block < 0 or not all(extent > 0 for extent in shape):
        raise damaged(layer, suffix, f"says {content!r:.200}", "positive sizes")
    return state


def _plain(in_flight: WeightFormat | None, layer: LinearShape, weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    """A weight that the checkpoint left in 16 or 32 bits."""
    if tuple(weight.shape) != (layer.outputs, layer.inputs):
        raise damaged(layer, "weight", f"has shape {list(weight.shape)}", str([layer.outputs, layer.inputs]))
    if in_flight is None:
        return DensePacked(weight.to(dtype, copy=True), exclusive=True)
    return in_flight.pack(layer, {"weight": weight.to(dtype)}, dtype)
