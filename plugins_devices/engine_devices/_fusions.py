"""Operations of a tape that one kernel computes together: fewer barriers, and results that stay in the cache."""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.plugin.contracts.operations import ACTIVATIONS
from engine_devices._linear import GATES, LinearArgs
from engine_devices._native import Call
from engine_devices._row_arguments import Rows
from engine_devices._tape import Buffers, pointers

#: ``linear_args.gate`` by the number of the activation.
_GATES = {ACTIVATIONS.index(name): gate for name, gate in GATES.items()}


def fuse(calls: list[Call], buffers: Buffers, outputs: tuple[Tensor, ...]) -> list[Call]:
    """The same step in fewer operations, with the same bits in ``outputs``.

    While a step is recorded no buffer is used twice, so an operation may run as late as its only reader.
    """
    step = _Step(calls, buffers, outputs)
    for index, call in enumerate(calls):
        match call.kernel:
            case "engine_gate":
                step.gate_into_linear(index)
            case "engine_add":
                step.add_into_linear(index)
            case "engine_place":
                step.heads_into_place(index)
            case "engine_rms_norm":
                step.add_into_norm(index)
            case "engine_best":
                step.best_into_linear(index)
            case "engine_quantize":
                step.norm_into_quantize(index)
    return [call for call in step.calls if call is not None]


class NormQuantize(ctypes.Structure):
    """``norm_quantize_args`` of native/norm_quantize.cpp."""

    _fields_ = (("norm", Rows), ("linear", LinearArgs))


class _Step:
    """The calls so far; None where one went into another. Fused calls have argument structs of their own."""

    def __init__(self, calls: list[Call], buffers: Buffers, outputs: tuple[Tensor, ...]) -> None:
        self.calls: list[Call | None] = list(calls)
        self._buffers = buffers
        self._users: Counter[int] = Counter()
        self._writers: dict[int, int] = {}
        layouts: dict[type[Any], list[int]] = {}
        for index, call in enumerate(calls):
            kind = type(call.arguments)
            if kind not in layouts:
                layouts[kind] = list(pointers(kind))
            base = ctypes.addressof(call.arguments)
            owners = {buffers.find(ctypes.c_void_p.from_address(base + offset).value or 0) for offset in layouts[kind]}
            self._users.update(owner for owner in owners if owner is not None)
            written: int | None = getattr(call.arguments, "out", None)
            if written is not None:
                self._writers[written] = index
        self._users.update(owner for tensor in outputs if (owner := buffers.find(tensor.data_ptr())) is not None)

    def maker(self, address: int | None, *kernels: str) -> int | None:
        """The call of one of ``kernels`` that writes what begins there, if nobody else reads it."""
        index = self._writers.get(address or 0)
        if index is None or (call := self.calls[index]) is None or call.kernel not in kernels:
            return None
        owner = self._buffers.find(address or 0)
        return index if owner is not None and self._users[owner] == 2 else None

    def replace(self, index: int, kernel: str, arguments: ctypes.Structure, *merged: int) -> None:
        """One call in place of several; it keeps alive what they did."""
        parts = [call for i in (index, *merged) if (call := self.calls[i]) is not None]
        kept = tuple(one for part in parts for one in part.keep)
        for other in merged:
            self.calls[other] = None
        self.calls[index] = replace(parts[0], kernel=kernel, arguments=arguments, keep=kept)
        self._writers[getattr(arguments, "out", 0)] = index

    def arguments(self, index: int) -> Any:
        """A copy of a call's arguments, or the struct itself where it is only read."""
        call = self.calls[index]
        return None if call is None else call.arguments

    def gate_into_linear(self, index: int) -> None:
        """act(gate) · up at the end of the product that made both."""
        gate = self.arguments(index)
        source = self.maker(gate.x, "engine_linear")
        if source is None or gate.function not in _GATES or gate.size % 32 or gate.outer != 1:
            return
        linear = _copy(self.arguments(source))
        if linear.gate or linear.residual or linear.outputs != 2 * gate.size:
            return
        linear.gate, linear.out, linear.out_stride = _GATES[gate.function], gate.out, gate.size
        self.replace(index, "engine_linear", linear, source)

    def add_into_linear(self, index: int) -> None:
        """The sum with the residual stream at the end of a product."""
        add = self.arguments(index)
        for ours, other, stride in ((add.y, add.x, add.x_inner), (add.x, add.y, add.y_inner)):
            source = self.maker(ours, "engine_linear")
            if source is None or ours == other:
                continue
            linear = _copy(self.arguments(source))
            rows = (linear.rows, linear.outputs, linear.out_type)
            if linear.gate or linear.residual or rows != (add.inner, add.size, add.type) or add.outer != 1:
                continue
            linear.residual, linear.residual_stride = other, stride
            linear.out, linear.out_stride = add.out, add.size
            self.replace(index, "engine_linear", linear, source)
            return

    def best_into_linear(self, index: int) -> None:
        """The largest of each row at the end of the product that makes them, where nothing comes between; the product's results stay."""
        best, call = self.arguments(index), self.calls[index - 1] if index else None
        if call is None or call.kernel != "engine_linear":
            return
        linear = _copy(call.arguments)
        made = (linear.out, linear.out_stride, linear.rows, linear.outputs, linear.out_type)
        if made != (best.logits, best.row, best.rows, best.size, best.type) or linear.gate or linear.units:
            return
        linear.best_value, linear.best_place, linear.best_found = best.value, best.place, best.scratch
        self.replace(index, "engine_linear", linear, index - 1)

    def add_into_norm(self, index: int) -> None:
        """A sum and the norm after it; the sum stays for others."""
        norm = self.arguments(index)
        source = self._writers.get(norm.x or 0)
        if source is None or (call := self.calls[source]) is None or call.kernel != "engine_add" or norm.y:
            return
        add = call.arguments
        if (norm.outer, norm.inner, norm.size, norm.type) != (add.outer, add.inner, add.size, add.type):
            return
        if any(other is not None and i > source and self._reads(other, add.out) for i, other in enumerate(self.calls[:index])):
            return
        fused = _copy(norm)
        fused.x, fused.x_outer, fused.x_inner = add.x, add.x_outer, add.x_inner
        fused.y, fused.y_outer, fused.y_inner = add.y, add.y_outer, add.y_inner
        fused.sum = add.out
        self.replace(index, "engine_rms_norm", fused, source)

    def norm_into_quantize(self, index: int) -> None:
        """A norm and the rounding of its rows to 8 bits, where only the product after that would read them."""
        quantize, after = self.arguments(index), self.calls[index + 1]
        source = self._writers.get(quantize.x or 0)
        if after is None or source is None or (call := self.calls[source]) is None or call.kernel != "engine_rms_norm":
            return
        product = _copy(after.arguments)
        norm, owner = call.arguments, self._buffers.find(quantize.x)
        if owner is None or self._users[owner] != 3 or (product.x, product.quantized) != (quantize.x, quantize.quantized):
            return
        rows = (quantize.rows, quantize.inputs, quantize.x_stride, quantize.x_type)
        if rows != (norm.outer * norm.inner, norm.size, norm.size, norm.type):
            return
        fused = NormQuantize(_copy(norm), _copy(quantize))
        fused.norm.out = fused.linear.x = None
        self.replace(index, "engine_norm_quantize", fused, source)
        product.x = None
        self.calls[index + 1] = replace(after, arguments=product)

    def _reads(self, call: Call, address: int) -> bool:
        base = ctypes.addressof(call.arguments)
        return any(ctypes.c_void_p.from_address(base + o).value == address for o in pointers(type(call.arguments)))

    def heads_into_place(self, index: int) -> None:
        """Norms and rotations of queries and keys, where keys and values are stored."""
        place = self.arguments(index)
        attend = next((c for c in self.calls[index + 1 : index + 2] if c is not None and c.kernel == "engine_attend"), None)
        if attend is None or place.q_out or place.cos:
            return
        key = self.maker(place.k, "engine_rotate")
        if key is not None and attend.arguments.rows != place.rows:
            self._keys_into_place(index, key)
            return
        query = self.maker(attend.arguments.q, "engine_rotate")
        if query is None or key is None:
            return
        q, k = self.arguments(query), self.arguments(key)
        same = ("cos", "sin", "angle_row", "half", "interleaved", "type", "rows", "size")
        if any(getattr(q, name) != getattr(k, name) for name in same) or place.type != q.type:
            return
        fused = _copy(place)
        for name in ("cos", "sin", "angle_row", "half", "interleaved"):
            setattr(fused, name, getattr(q, name))
        fused.q, fused.q_row, fused.q_head = q.x, q.x_row, q.x_head
        fused.k, fused.k_row, fused.k_head = k.x, k.x_row, k.x_head
        fused.q_out, fused.out_row, fused.out_head = q.out, q.heads * q.size, q.size
        norms = [self.maker(q.x, "engine_rms_norm"), self.maker(k.x, "engine_rms_norm")]
        merged = [query, key]
        if norms[0] is not None and norms[1] is not None:
            merged += self._norms_into(fused, norms[0], norms[1], q.size)
        self.replace(index, "engine_place", fused, *merged)

    def _keys_into_place(self, index: int, key: int) -> None:
        """Norms and rotations of keys alone: the queries are those of other rows."""
        place, k = _copy(self.arguments(index)), self.arguments(key)
        if place.type != k.type:
            return
        for name in ("cos", "sin", "angle_row", "half", "interleaved"):
            setattr(place, name, getattr(k, name))
        place.k, place.k_row, place.k_head = k.x, k.x_row, k.x_head
        merged, norm = [key], self.maker(k.x, "engine_rms_norm")
        if norm is not None and (made := self.arguments(norm)).size == k.size and made.y is None:
            place.k, place.k_row, place.k_head, place.k_norm = made.x, made.x_outer, made.x_inner, made.weight
            place.eps, place.offset = made.eps, made.offset
            merged.append(norm)
        self.replace(index, "engine_place", place, *merged)

    def _norms_into(self, place: Any, query: int, key: int, size: int) -> list[int]:
        """Take in the norms of the heads, if they are of one kind; returns which calls that makes superfluous."""
        q, k = self.arguments(query), self.arguments(key)
        if (q.eps, q.offset, q.size, k.size, q.y, k.y) != (k.eps, k.offset, size, size, None, None):
            return []
        place.q, place.q_row, place.q_head, place.q_norm = q.x, q.x_outer, q.x_inner, q.weight
        place.k, place.k_row, place.k_head, place.k_norm = k.x, k.x_outer, k.x_inner, k.weight
        place.eps, place.offset = q.eps, q.offset
        return [query, key]


def _copy(arguments: Any) -> Any:
    return type(arguments).from_buffer_copy(arguments)
