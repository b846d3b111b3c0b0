"""Linear layers on GPUs: quantized weights are multiplied as they are kept, by Triton kernels."""

# mypy: disable-error-code="import-untyped"
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from engine.layers.packed_quantized import Codebook, GroupedInteger, ScaledFloat8
from engine.plugin import LinearKernel, PackedWeight
from engine_devices import _triton_linear as kernels

#: Triton's interpreter computes on bfloat16 as if its bits were integers: everything is widened first where it runs.
INTERPRETING = not isinstance(kernels.linear_kernel, triton.JITFunction)
#: Rows up to which a product is bound by reading weights: its inputs are split until there are this many programs.
FEW_ROWS = 16
PROGRAMS = 512
BLOCK = 1024
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Tiles:
    """Of one program: rows, outputs, and the most inputs of a step."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int


DECODE = Tiles(16, 32, 128, 4, 4)
PREFILL = Tiles(64, 128, 64, 8, 3)
#: float32 takes twice the shared memory.
PREFILL_WIDE = Tiles(32, 64, 32, 4, 2)


@dataclass(frozen=True, eq=False)
class Weight:
    """A packed weight as the kernel takes it. ``values`` [outputs, bytes]; ``scale`` (and ``shift``) [⌈outputs / scale_rows⌉, groups]."""

    kind: int
    values: Tensor
    scale: Tensor
    inputs: int
    group: int
    scale_rows: int = 1
    shift: Tensor | None = None
    table: Tensor | None = None
    outer: Tensor | None = None


def weight_of(packed: PackedWeight) -> Weight | None:
    """None for a layout, or a group size, that the kernel does not take."""
    if isinstance(packed, GroupedInteger) and packed.bits in (4, 8) and _takes(packed.group, packed.inputs):
        kind = kernels.INT4 if packed.bits == 4 else kernels.INT8
        return Weight(
            kind, packed.values.contiguous(), packed.scale.contiguous(), packed.inputs, packed.group,
            shift=None if packed.shift is None else packed.shift.contiguous(),
        )  # fmt: skip
    if isinstance(packed, ScaledFloat8) and _takes(packed.columns, packed.inputs):
        kind = kernels.E4M3 if packed.values.dtype == torch.float8_e4m3fn else kernels.E5M2
        values = packed.values.contiguous().view(torch.uint8)
        return Weight(kind, values, packed.scale.contiguous(), packed.inputs, packed.columns, packed.rows)
    if isinstance(packed, Codebook) and _takes(packed.group, packed.inputs):
        kind = kernels.CODES4 if packed.bits == 4 else kernels.CODES8
        # float16 holds every float8_e4m3fn; not every GPU reads 8-bit floats
        wide = {torch.float8_e4m3fn: torch.float16, torch.float8_e8m0fnu: torch.float32}.get(packed.scale.dtype, packed.scale.dtype)
        return Weight(
            kind, packed.codes.contiguous(), packed.scale.to(wide).contiguous(), packed.inputs, packed.group,
            table=packed.table.contiguous(), outer=packed.outer,
        )  # fmt: skip
    return None


class TritonLinear(LinearKernel):
    """Multiplies by one quantized weight. Sums are float32; a result does not depend on other rows of up to 16."""

    def __init__(self, weight: Weight) -> None:
        self.weight = weight
        self.outputs = len(weight.values)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype: float32, bfloat16 or float16."""
        flat = x.reshape(-1, self.weight.inputs)
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        out = torch.empty((len(flat), self.outputs), dtype=x.dtype, device=x.device)
        if out.numel():
            self._multiply(flat, bias, out)
        return out.view(*x.shape[:-1], self.outputs)

    def _multiply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        rows, inputs = x.shape
        tiles = DECODE if rows <= FEW_ROWS else PREFILL_WIDE if x.dtype == torch.float32 else PREFILL
        step = self._step(tiles.inputs)
        grid = (triton.cdiv(self.outputs, tiles.outputs), triton.cdiv(rows, tiles.rows))
        # Where few rows make few programs; a split has four steps at least.
        splits = max(1, min(PROGRAMS // (grid[0] * grid[1]), inputs // (4 * step))) if rows <= FEW_ROWS else 1
        length = triton.cdiv(triton.cdiv(inputs, splits), step) * step
        splits = triton.cdiv(inputs, length)
        target = out if splits == 1 else torch.empty((splits, rows, self.outputs), dtype=torch.float32, device=x.device)
        self._launch((*grid, splits), tiles, step, length, x, bias if splits == 1 else None, target)
        if splits > 1:
            size = out.numel()
            kernels.sum_kernel[(triton.cdiv(size, BLOCK),)](
                target, x if bias is None else bias, out, size, self.outputs, splits, BIAS=bias is not None, BLOCK=BLOCK,
            )  # fmt: skip

    def _launch(
        self, grid: tuple[int, ...], tiles: Tiles, step: int, length: int, x: Tensor, bias: Tensor | None, out: Tensor
    ) -> None:
        w = self.weight
        spare = w.scale  # stands for tensors that are not there
        kernels.linear_kernel[grid](
            x, w.values, w.scale, spare if w.shift is None else w.shift, spare if w.table is None else w.table,
            spare if w.outer is None else w.outer, spare if bias is None else bias, out, x.shape[0], w.inputs, self.outputs, length,
            x.stride(0), w.values.stride(0), w.scale.stride(0), max(w.group, step), w.scale_rows,
            KIND=w.kind, SHIFT=w.shift is not None, OUTER=w.outer is not None, BIAS=bias is not None, SPLIT=grid[2] > 1,
            HALVES=w.kind in (kernels.INT4, kernels.CODES4), ROWS=tiles.rows, OUTS=tiles.outputs, INS=step,
            UPCAST=INTERPRETING, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip

    def _step(self, most: int) -> int:
        """Inputs of a step: the largest power of two up to ``most`` that divides a group."""
        group = self.weight.group
        return most if group >= self.weight.inputs else min(most, group & -group)


def _takes(group: int, inputs: int) -> bool:
    return group >= inputs or group % 16 == 0


def linear_kernel(packed: PackedWeight) -> LinearKernel | None:
    """The Triton kernel for a canonical layout; None where the core's way, torch, is the one."""
    weight = weight_of(packed)
    return None if weight is None else TritonLinear(weight)
