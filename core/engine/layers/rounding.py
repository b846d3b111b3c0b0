"""How a quantization format rounds activations before a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["int8", "float8_e4m3fn", "float8_e5m2", "e2m1"]

#: The largest value of each kind.
TOP = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0, "e2m1": 6.0}
#: Magnitudes half-way between neighbouring e2m1 values; a tie goes to the neighbour with an even code.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_BETWEEN = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


@dataclass(frozen=True, eq=False)
class ActivationRounding:
    """x → scale · (q − zero), q of ``kind``. One of:

    - ``scale`` given and ``group`` 0: static, one scale (float32, one element) for all; ``zero`` (int8 only) is subtracted.
    - ``scale`` None, ``group`` −1: dynamic, one scale for the whole tensor of a call.
    - ``scale`` None, ``group`` 0: dynamic, one scale per row (token).
    - ``group`` > 0: dynamic, one scale per row and that many inputs; ``scale_dtype`` (float8_e4m3fn, float8_e8m0fnu) is what these
      scales are rounded to, after division by ``scale`` where one is given (NVFP4's global scale), which multiplies afterwards.

    A dynamic scale is max|x| / ``top`` (0: the kind's largest value; the divisor differs between formats), |x| taken as at most
    ``upper``. ``asymmetric``: dynamic int8 with a zero point from least and largest x.
    """

    kind: Kind
    scale: Tensor | None = None
    zero: Tensor | None = None
    group: int = 0
    top: float = 0.0
    upper: float | None = None
    asymmetric: bool = False
    scale_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.kind not in TOP:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(TOP)}")
        if self.scale is not None and self.scale.numel() != 1:
            raise ValueError(f"scale has shape {list(self.scale.shape)}; one element is needed")
        if (self.zero is not None or self.asymmetric) and self.kind != "int8":
            raise ValueError(f"zero points need the kind int8, not {self.kind}")
        if self.scale_dtype not in (None, torch.float8_e4m3fn, torch.float8_e8m0fnu):
            raise ValueError(f"scale_dtype is {self.scale_dtype}; it must be float8_e4m3fn or float8_e8m0fnu")
        if self.group < -1:
            raise ValueError(f"group is {self.group}; it must be −1, 0 or positive")

    def round(self, x: Tensor) -> Tensor:
        """[…, inputs] → the rounded values, float32."""
        value = x.float()
        if self.group <= 0:
            scale, zero = self._scale(value)
            return self._values(value, scale, zero)
        inputs = value.shape[-1]
        groups = -(-inputs // self.group)
        padded = torch.nn.functional.pad(value, (0, groups * self.group - inputs))
        padded = padded.view(*value.shape[:-1], groups, self.group)
        scale, zero = self._scale(padded)
        return self._values(padded, scale, zero).flatten(-2)[..., :inputs]

    def _scale(self, value: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.scale is not None and self.group <= 0:
            zero = None if self.zero is None else self.zero.to(value.device).float()
            return self.scale.to(value.device).float(), zero
        if self.asymmetric:
            return self._asymmetric(value)
        largest = value.abs()
        largest = largest.amax() if self.group == -1 else largest.amax(-1, keepdim=True)
        if self.upper is not None:
            largest = largest.clamp(max=self.upper)
        scale = largest / (self.top or TOP[self.kind])
        if self.scale_dtype is not None:
            outer = 1.0 if self.scale is None else self.scale.to(value.device).float()
            return round_scale(scale / outer, self.scale_dtype) * outer, None
        return scale, None

    def _asymmetric(self, value: Tensor) -> tuple[Tensor, Tensor]:
        least, most = (value.amin(), value.amax()) if self.group == -1 else (value.amin(-1, keepdim=True), value.amax(-1, keepdim=True))
        least, most = least.clamp(max=0), most.clamp(min=0)
        scale = (most - least) / 255
        zero = (-128 - least / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().clamp(-128, 127)
        return scale, zero

    def _values(self, value: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        # A row of zeros has the scale 0, and stays zeros.
        scaled = value / torch.where(scale == 0, 1.0, scale)
        if self.kind == "e2m1":
            return round_e2m1(scaled) * scale
        if self.kind == "int8":
            shifted = scaled.round() if zero is None else scaled.round() + zero
            kept = shifted.clamp(-128, 127)
            return (kept if zero is None else kept - zero) * scale
        top = TOP[self.kind]
        return scaled.clamp(-top, top).to(getattr(torch, self.kind)).float() * scale


def round_scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale as float8 holds it, float32; e8m0 is the power of two not below it, so that nothing exceeds the range."""
    if dtype == torch.float8_e8m0fnu:
        return torch.exp2(scale.clamp(min=2.0**-127).log2().ceil().clamp(-127, 127))
    return scale.clamp(max=448.0).to(dtype).float()


def round_e2m1(value: Tensor) -> Tensor:
    """To the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 with the sign kept; ties to the even code; beyond 6 to 6."""
    magnitude = value.abs()
    # A boundary is reached from below by right=False; ties at odd-to-even steps must go up, at even-to-odd ones stay.
    edges = torch.tensor(_BETWEEN, device=value.device)
    code = torch.bucketize(magnitude, edges)
    upward = (code < len(_BETWEEN)) & (code % 2 == 1) & (magnitude == edges[code.clamp(max=len(_BETWEEN) - 1)])
    code = code + upward
    return torch.tensor(_E2M1, device=value.device)[code] * torch.sign(value)
