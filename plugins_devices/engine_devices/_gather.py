"""Rows of a weight of integers in panels, for embeddings that share it with the head."""

from __future__ import annotations

import torch
from torch import Tensor

from engine_devices._native import ELEMENT_TYPES
from engine_devices._weights import PANEL, Panels


def gathers(panels: Panels) -> bool:
    """Whether :func:`gather` can read these panels."""
    return panels.scale is not None and panels.type in (ELEMENT_TYPES["int4"], ELEMENT_TYPES["int8"])


def gather(panels: Panels, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows ``ids`` (int64 [T]) dequantized, [T, inputs]: computed in float32, then rounded to ``dtype``."""
    if panels.scale is None:
        raise ValueError("dense panels are gathered by a native operation")
    panel, lane = ids // PANEL, ids % PANEL
    # four bytes of each of a panel's rows follow each other; of 4-bit values they hold eight, the later four in the upper halves
    data = panels.weight.view(-(-panels.outputs // PANEL), -1, PANEL, 4)[panel, :, lane]
    if panels.type == ELEMENT_TYPES["int4"]:
        values = torch.cat((data & 15, data >> 4), -1).flatten(1).float() - 8
    else:
        values = data.flatten(1).float() - 128
    scale = panels.scale[panel, :, lane].float() * panels.factor
    rows = values.view(len(ids), scale.shape[1], -1) * scale.unsqueeze(-1)
    if panels.shift is not None:
        rows += (panels.shift[panel, :, lane].float() * panels.factor).unsqueeze(-1)
    return rows.flatten(1)[:, : panels.inputs].to(dtype)
