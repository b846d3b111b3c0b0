"""Packed weights to the byte, as native/linear.h has the layouts, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.packed_integer import GroupedInteger
from engine_devices._native import Native
from engine_devices._weights import HUGE_PAGE, pack_dense, pack_integer

#: Outputs of the pieces, and inputs: whole squares, what is left beside them, panels that are not full, rows that nobody has.
SHAPES = [((32,), 32), ((32,), 64), ((5,), 100), ((64, 96, 33), 70), ((1,), 1), ((64, 0, 32), 257), ((96,), 15)]


def columns(weight: Tensor, together: int, *, registers: bool = False) -> Tensor:
    """[outputs, inputs] → [panels, inputs / together, 32, together], both filled up with zeros; flat.

    ``registers``: as the matrix unit loads them, [panels, inputs / 32, 2, 16, 16, together].
    """
    outputs, inputs = weight.shape
    padded = functional.pad(weight, (0, inputs % 2, 0, -outputs % 32))
    if registers:
        return padded.reshape(-1, 2, 16, inputs // 32, 16, together).permute(0, 3, 1, 4, 2, 5).flatten()
    return padded.reshape(-1, 32, padded.shape[1] // together, together).transpose(1, 2).flatten()


@pytest.mark.parametrize(("dtype", "together"), [(torch.float32, 1), (torch.bfloat16, 2), (torch.float16, 1)])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("apart", [0, 3])
def test_pieces(native: Native, outputs: tuple[int, ...], inputs: int, dtype: torch.dtype, together: int, apart: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    pieces = [torch.randn(rows, inputs + apart, generator=generator).to(dtype)[:, :inputs] for rows in outputs]
    packed = pack_dense(native, pieces).weight
    registers = native.isa == "amx" and dtype == torch.bfloat16 and inputs % 32 == 0
    assert torch.equal(packed, columns(torch.cat(pieces), together, registers=registers))


def test_more_panels_than_a_round_of_huge_pages(native: Native) -> None:
    inputs = 2048
    rows = 32 * (4 * HUGE_PAGE // (32 * inputs * 2) + 5)
    weight = torch.arange(rows * inputs, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(rows, inputs)
    packed = pack_dense(native, [weight]).weight
    assert torch.equal(packed.view(torch.int16), columns(weight.view(torch.int16), 2, registers=native.isa == "amx"))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 64), (64, 512), (33, 130), (7, 9), (96, 128), (32, 200)])
def test_integers(native: Native, outputs: int, inputs: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(outputs)
    half = 1 << (bits - 1)
    integers = torch.randint(-half, half, (outputs, inputs), generator=generator)
    panels = pack_integer(native, GroupedInteger.of(integers, torch.ones(outputs, 1), bits=bits, group=inputs))
    assert panels is not None
    padded = -(-inputs // 32) * 32
    wanted = functional.pad(integers, (0, padded - inputs, 0, -outputs % 32)) + half
    if bits == 8:
        wanted = wanted.view(-1, 32, padded // 4, 4).transpose(1, 2)
    else:
        # byte j of 8 inputs: the input j low, the input 4 + j high
        eighths = wanted.view(-1, 32, padded // 8, 2, 4).transpose(1, 2)
        wanted = eighths[..., 0, :] | eighths[..., 1, :] << 4
    assert torch.equal(panels.weight, wanted.flatten().to(torch.uint8))
