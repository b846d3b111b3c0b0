"""Blocks of 64 elements of a flattened weight in nf4, under the names and in the order of bitsandbytes."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from engine.layers.packed_integer import pack_fields
from engine.layers.packed_rounding import SLICE, row_slices
from engine_quant._bnb import nearest
from engine_quant._bnb_tables import NESTED_BLOCK, TABLES, double_rounding, scale_table

BLOCK = 64
_STATE = "weight.quant_state.bitsandbytes__nf4"


def quantized(weight: Tensor, *, double: bool) -> dict[str, Tensor]:
    """A weight [outputs, inputs] → its tensors by suffix."""
    table = torch.tensor(TABLES["nf4"])
    codes, largest = _rounded(weight.reshape(-1), table)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": str(weight.dtype).removeprefix("torch."), "shape": list(weight.shape)}
    tensors = {"weight": codes.unsqueeze(1), "weight.absmax": largest, "weight.quant_map": table}
    if double:
        rounded = double_rounding(largest)
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": rounded.mean.item()}
        tensors |= {
            "weight.absmax": rounded.codes, "weight.nested_absmax": rounded.largest, "weight.nested_quant_map": scale_table(),
        }  # fmt: skip
    tensors[_STATE] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return tensors


def rows(weight: Tensor) -> dict[str, Tensor]:
    """A weight [outputs, inputs] → ``weight`` int8 [outputs · inputs, 1] and ``SCB`` float32 [outputs]: value · SCB / 127."""
    values, largest = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    for part in row_slices(*weight.shape):
        whole = weight[part].float()
        largest[part] = whole.abs().amax(1)
        values[part] = (whole * (127 / largest[part].clamp(min=1e-30)).unsqueeze(1)).round().to(torch.int8)
    return {"weight": values.view(-1, 1), "SCB": largest}


def _rounded(flat: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 codes, the first of two in the high half, and float32 largest magnitudes by block."""
    codes, scales = [], []
    for start in range(0, len(flat), SLICE):
        part = flat[start : start + SLICE].float()
        blocks = torch.nn.functional.pad(part, (0, -len(part) % BLOCK)).view(-1, BLOCK)
        largest = blocks.abs().amax(1)
        found = nearest(blocks / largest.clamp(min=1e-30).unsqueeze(1), table).to(torch.uint8).flatten()[: len(part)]
        low_first = pack_fields(found.unsqueeze(0), 4).squeeze(0)
        codes.append((low_first << 4) | (low_first >> 4))
        scales.append(largest)
    return torch.cat(codes), torch.cat(scales)
