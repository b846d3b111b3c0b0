"""The layers' operations on the native kernels."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.plugin.contracts.operations import ACTIVATIONS, GrammarSteps, Operations
from engine_devices._arguments import element_type
from engine_devices._draws import BEST_CHUNK, Draw, aim, forbid
from engine_devices._experts import mixture
from engine_devices._grammars import StepGrammars, step_grammars
from engine_devices._row_arguments import Angles, Best, Embed, Forbid, Rotate, Rows, Select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin import LinearKernel, Mixture
    from engine_devices._native import Native, Operation

#: ``ENGINE_SOFT_CAP`` of native/rows.h.
SOFT_CAP = 8
FUNCTIONS = {name: number for number, name in enumerate(ACTIVATIONS)}


class NativeOperations(Operations):
    """One kernel each. They round where the torch operations do; sums run in float32 in an order of their own.

    ``soft_cap`` and the activations round once, at their end.
    """

    steps_grammars = True

    def __init__(self, native: Native) -> None:
        self._native = native
        #: Steps and masks of last time, which the next ones often are again, as the kernels take them.
        self._steps: tuple[GrammarSteps, StepGrammars] | None = None
        self._masks: tuple[NDArray[np.int64], NDArray[np.int32], Forbid] | None = None
        self._draw: Draw | None = None
        #: What may still be running.
        self._begun: tuple[GrammarSteps, StepGrammars, ctypes.Array[Operation]] | None = None

    def embed(self, ids: Tensor, weight: Tensor, *, offset: int = 0, scale: float | None = None) -> Tensor:
        """See the contract."""
        ids = ids.contiguous()
        out = torch.empty((*ids.shape, weight.shape[-1]), dtype=weight.dtype)
        arguments = Embed(
            ids=ids.data_ptr(), weight=weight.data_ptr(), out=out.data_ptr(), size=weight.shape[-1], offset=offset,
            rows=ids.numel(), type=element_type(weight.dtype), scaled=scale is not None, scale=scale or 0.0,
        )  # fmt: skip
        self._native.run("engine_embed", arguments, ids, weight, out)
        return out

    def select(self, x: Tensor, rows: Tensor) -> Tensor:
        """See the contract."""
        out = torch.empty((len(rows), *x.shape[1:]), dtype=x.dtype)
        if x.dim() not in (2, 3) or x.stride(-1) != 1:
            x = x.contiguous().view(len(x), -1)
        inner = x.shape[1] if x.dim() == 3 else 1
        arguments = Select(
            x=x.data_ptr(), rows=rows.data_ptr(), out=out.data_ptr(), x_row=x.stride(0), x_inner=x.stride(1) if x.dim() == 3 else 0,
            count=len(rows), inner=inner, size=x.shape[-1], type=element_type(x.dtype),
        )  # fmt: skip
        self._native.run("engine_select", arguments, x, rows, out)
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
        """See the contract."""
        return self._rows("engine_rms_norm", x, None, weight=weight, eps=eps, offset=offset)

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """See the contract."""
        return self._rows("engine_layer_norm", x, None, weight=weight, bias=bias, eps=eps)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """See the contract."""
        return self._rows("engine_add", x, y)

    def activate(self, x: Tensor, name: str) -> Tensor:
        """See the contract."""
        return self._rows("engine_activate", x, None, function=FUNCTIONS[name])

    def gate(self, x: Tensor, name: str) -> Tensor:
        """See the contract."""
        return self._rows("engine_gate", x, None, function=FUNCTIONS[name], half=True)

    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        """See the contract."""
        return self._rows("engine_activate", x, None, function=SOFT_CAP, cap=cap)

    def rotation(self, positions: Tensor, frequencies: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """See the contract."""
        positions = positions.contiguous()
        shape = (len(positions), 1, len(frequencies))
        cos, sin = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
        arguments = Angles(
            positions=positions.data_ptr(), frequencies=frequencies.data_ptr(), cos=cos.data_ptr(), sin=sin.data_ptr(),
            rows=len(positions), count=len(frequencies), type=element_type(dtype), scale=scale,
        )  # fmt: skip
        self._native.run("engine_angles", arguments, positions, frequencies, cos, sin)
        return cos, sin

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
        """See the contract."""
        rows, heads, size = x.shape
        out = torch.empty(x.shape, dtype=x.dtype)
        arguments = Rotate(
            x=x.data_ptr(), cos=cos.data_ptr(), sin=sin.data_ptr(), out=out.data_ptr(), x_row=x.stride(0), x_head=x.stride(1),
            angle_row=cos.stride(0), rows=rows, heads=heads, size=size, half=cos.shape[-1], type=element_type(x.dtype),
            interleaved=interleaved,
        )  # fmt: skip
        self._native.run("engine_rotate", arguments, x, cos, sin, out)
        return out

    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See the contract."""
        arguments, value, place, scratch = self._best(logits)
        self._native.run("engine_best", arguments, logits, value, place, scratch)
        return value, place

    def mixture(
        self, gate_up: Sequence[LinearKernel], down: Sequence[LinearKernel], *, top_k: int, renormalize: bool, act: str
    ) -> Mixture | None:
        """See the contract."""
        return mixture(self._native, gate_up, down, top_k=top_k, renormalize=renormalize, act=act)

    def step_grammars(self, steps: GrammarSteps) -> None:
        """See the contract."""
        self._native.run_together(self._stepped(steps))

    def begin_grammars(self, steps: GrammarSteps) -> bool:
        """See the contract."""
        known = self._begun
        if known is None or known[0] is not steps:
            self._native.finish()  # threads may still be using what goes now
            stepped = step_grammars(steps)
            self._begun = known = steps, stepped, self._native.listed([("engine_step_grammars", stepped)])
        self._native.begin_list(known[2])
        return True

    def finish_grammars(self) -> None:
        """See the contract."""
        self._native.finish()

    def restrict(
        self, logits: Tensor, rows: NDArray[np.int64], bits: NDArray[np.int32], steps: GrammarSteps | None = None
    ) -> tuple[Tensor, Tensor]:
        """See the contract."""
        arguments, value, place, _scratch = self._best(logits)
        self._native.run_together([*self._stepped(steps), ("engine_forbid", self._forbid(logits, rows, bits)), ("engine_best", arguments)])
        return value, place

    def sample(
        self, logits: Tensor, best: Tensor, temperature: NDArray[np.float32], top_k: NDArray[np.int64],
        top_p: NDArray[np.float32], min_p: NDArray[np.float32], chance: NDArray[np.float64],
        masks: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None, steps: GrammarSteps | None = None,
    ) -> Tensor | None:
        """See the contract."""
        drawing = (temperature, top_k, top_p, min_p, chance)
        draw = self._draw
        if draw is None or not draw.of(drawing, masks, steps):
            draw = self._draw = Draw(self._native, drawing, masks, steps)
        return draw.run(logits, best)

    def _stepped(self, steps: GrammarSteps | None) -> list[tuple[str, ctypes.Structure]]:
        """The operation that does them; none where there are none."""
        return [] if steps is None else [("engine_step_grammars", self._known(steps))]

    def _known(self, steps: GrammarSteps) -> StepGrammars:
        if self._steps is None or self._steps[0] is not steps:
            self._steps = steps, step_grammars(steps)
        return self._steps[1]

    def _forbid(self, logits: Tensor, rows: NDArray[np.int64], bits: NDArray[np.int32]) -> Forbid:
        known = self._masks
        if known is None or known[0] is not rows or known[1] is not bits:
            self._masks = known = rows, bits, forbid(rows, bits)
        aim(known[2], logits, rows, bits)
        return known[2]

    def _best(self, logits: Tensor) -> tuple[Best, Tensor, Tensor, Tensor]:
        """Arguments of the kernel, and the tensors that they point to: the values, the ids, its scratch memory."""
        rows, size = logits.shape
        value = torch.empty(rows, dtype=torch.float32)
        place = torch.empty(rows, dtype=torch.int64)
        # For the kernel, and for a product that finds them itself (native/linear.h).
        scratch = torch.empty(2 * rows * max(-(-size // BEST_CHUNK), self._native.threads), dtype=torch.int64)
        arguments = Best(
            logits=logits.data_ptr(), value=value.data_ptr(), place=place.data_ptr(), scratch=scratch.data_ptr(),
            row=logits.stride(0), size=size, rows=rows, type=element_type(logits.dtype),
        )  # fmt: skip
        return arguments, value, place, scratch

    def _rows(
        self, kernel: str, x: Tensor, y: Tensor | None, *, weight: Tensor | None = None, bias: Tensor | None = None,
        function: int = 0, eps: float = 0.0, offset: float = 0.0, cap: float = 0.0, half: bool = False,
    ) -> Tensor:
        """Run a kernel on the rows of x; ``half``: the result has half of x's width."""
        x, outer, inner = _planes(x)
        size = x.shape[-1] // 2 if half else x.shape[-1]
        out = torch.empty((*x.shape[:-1], size), dtype=x.dtype)
        x_outer, x_inner = _strides(x)
        arguments = Rows(
            x=x.data_ptr(), out=out.data_ptr(), x_outer=x_outer, x_inner=x_inner, outer=outer, inner=inner, size=size,
            type=element_type(x.dtype), function=function, eps=eps, offset=offset, cap=cap,
        )  # fmt: skip
        if y is not None:
            y, _, _ = _planes(y)
            arguments.y = y.data_ptr()
            arguments.y_outer, arguments.y_inner = _strides(y)
        if weight is not None:
            arguments.weight = weight.data_ptr()
        if bias is not None:
            arguments.bias = bias.data_ptr()
        self._native.run(kernel, arguments, x, y, weight, bias, out)
        return out


def _planes(x: Tensor) -> tuple[Tensor, int, int]:
    """x as the kernels take it, [outer, inner, size] with any strides of outer and inner: its outer and inner sizes."""
    if x.dim() > 3 or x.stride(-1) != 1:
        x = x.contiguous()
    if x.dim() <= 2:
        return x, 1, x.shape[0] if x.dim() == 2 else 1
    inner = x.shape[-2]
    return x, x.numel() // (inner * x.shape[-1]) if x.numel() else 0, inner


def _strides(x: Tensor) -> tuple[int, int]:
    """Strides of outer and inner; a contiguous x of more than three axes counts as three."""
    match x.dim():
        case 1:
            return 0, 0
        case 2:
            return 0, x.stride(0)
        case 3:
            return x.stride(0), x.stride(1)
    return x.shape[-2] * x.shape[-1], x.shape[-1]
