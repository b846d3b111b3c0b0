"""Canonical 8-bit floats with a scale per block, row or tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.layers.packed_rounding import row_slices
from engine.plugin.contracts.packed import PackedWeight

#: The largest finite value of each 8-bit float.
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


class ScaledFloat8(PackedWeight):
    """weight[o, i] = scale[o // rows, i // columns] · value[o, i] with values in float8_e4m3fn or float8_e5m2.

    ``scale``: floats [⌈outputs / rows⌉, ⌈inputs / columns⌉]. One scale in all: rows = outputs, columns = inputs; one per output:
    rows = 1, columns = inputs; blocks: both smaller. ``exclusive``: nobody else reads the tensors.
    """

    layout = "scaled_float8"

    def __init__(self, values: Tensor, scale: Tensor, *, rows: int, columns: int, exclusive: bool = False) -> None:
        if values.dim() != 2 or values.dtype not in LARGEST:
            raise ValueError(f"values are {values.dtype} {list(values.shape)}; float8_e4m3fn or float8_e5m2 is needed, in two dimensions")
        self.values, self.scale = values, scale
        self.rows, self.columns = rows, columns
        self.exclusive = exclusive
        self.outputs, self.inputs = values.shape
        if rows < 1 or columns < 1:
            raise ValueError(f"rows and columns are {rows} and {columns}; they must be positive")
        wanted = (-(-self.outputs // rows), -(-self.inputs // columns))
        if tuple(scale.shape) != wanted or not scale.is_floating_point():
            raise ValueError(f"scale is {scale.dtype} and has shape {list(scale.shape)}; floats {list(wanted)} are needed")

    @classmethod
    def quantize(
        cls, weight: Tensor, *, dtype: torch.dtype = torch.float8_e4m3fn, rows: int = 0, columns: int = 0, top: float = 0.0
    ) -> ScaledFloat8:
        """Round a dense weight: scale = max|w| / ``top`` (0: the dtype's largest) per block; rows or columns 0: all of them."""
        outputs, inputs = weight.shape
        rows, columns, top = rows or outputs, columns or inputs, top or LARGEST[dtype]
        padded = torch.nn.functional.pad(weight.float(), (0, -inputs % columns, 0, -outputs % rows))
        blocks = padded.view(-(-outputs // rows), rows, -(-inputs // columns), columns)
        scale = (blocks.abs().amax((1, 3)) / top).clamp(min=1e-12)
        values = (blocks / scale[:, None, :, None]).clamp(-top, top).view(padded.shape)[:outputs, :inputs].to(dtype)
        return cls(values, scale, rows=rows, columns=columns, exclusive=True)

    @classmethod
    def round_rows(
        cls, weight: Tensor, *, dtype: torch.dtype = torch.float8_e4m3fn, scale_dtype: torch.dtype = torch.float32, together: bool = False
    ) -> ScaledFloat8:
        """Round a dense weight in slices of rows, for scales that are kept in ``scale_dtype``: one per output, or one ``together``."""
        outputs, inputs = weight.shape
        top = LARGEST[dtype]
        slices = list(row_slices(outputs, inputs))
        largest = torch.cat([weight[rows].abs().amax(1, keepdim=True).float() for rows in slices])
        largest = largest.amax().view(1, 1) if together else largest
        scale = (largest / top).clamp(min=max(1e-12, torch.finfo(scale_dtype).tiny)).to(scale_dtype)
        values = torch.empty(outputs, inputs, dtype=dtype, device=weight.device)
        for rows in slices:
            steps = scale.float() if together else scale[rows].float()
            values[rows] = weight[rows].float().div(steps).clamp_(-top, top).to(dtype)
        return cls(values, scale, rows=outputs if together else 1, columns=inputs, exclusive=True)

    def expanded_scale(self) -> Tensor:
        """float32 [outputs, ⌈inputs / columns⌉]."""
        return self.scale.float()[torch.arange(self.outputs, device=self.scale.device) // self.rows]

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        columns = torch.arange(self.inputs, device=self.values.device) // self.columns
        numbers = torch.arange(self.outputs, device=self.values.device)[which]
        # Not every device can index 8-bit floats: their bytes can be everywhere.
        values = self.values.view(torch.uint8)[which].view(self.values.dtype).float()
        return (values * self.scale.float()[numbers // self.rows][:, columns]).to(dtype)

    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scale.nbytes
