"""The canonical quantized weights: what their tensors mean, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed_quantized import GroupedInteger, ScaledFloat8, pack_nibbles, unpack_nibbles


@pytest.mark.parametrize("inputs", [1, 2, 7, 64])
def test_nibbles_round_trip(inputs):
    integers = torch.randint(-8, 8, (5, inputs))
    packed = pack_nibbles(integers)
    assert packed.shape == (5, -(-inputs // 2))
    assert torch.equal(unpack_nibbles(packed, inputs), integers.to(torch.int8))
    assert int(packed[0, 0]) & 15 == int(integers[0, 0]) + 8


@pytest.mark.parametrize("bits", [4, 8])
def test_grouped_integers_by_hand(bits):
    values = torch.tensor([[1, -2, 3], [7, -8, 0]])
    scale, shift = torch.tensor([[0.5, 2.0], [1.0, 0.25]]), torch.tensor([[0.0, 1.0], [10.0, -1.0]])
    packed = GroupedInteger.of(values, scale, shift, bits=bits, group=2)
    wanted = torch.tensor([[0.5, -1.0, 7.0], [17.0, 2.0, -1.0]])
    assert torch.equal(packed.dequantize(torch.float32), wanted)
    assert (packed.outputs, packed.inputs) == (2, 3)
    assert packed.nbytes() == (4 if bits == 4 else 6) + 16 + 16


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(8, 0), (8, 32), (4, 32), (4, 48)])
def test_rounding_is_to_nearest(bits, group, asymmetric):
    weight = torch.randn(16, 100)
    packed = GroupedInteger.quantize(weight, bits=bits, group=group, asymmetric=asymmetric)
    steps = packed.scale[:, torch.arange(100) // packed.group]
    assert ((packed.dequantize(torch.float32) - weight).abs() <= steps * 0.5001 + 1e-6).all()


def test_float8_blocks():
    values = torch.ones(3, 5).to(torch.float8_e4m3fn)
    packed = ScaledFloat8(values, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), rows=2, columns=3)
    wanted = torch.tensor([[1.0, 1, 1, 2, 2], [1, 1, 1, 2, 2], [3, 3, 3, 4, 4]])
    assert torch.equal(packed.dequantize(torch.float32), wanted)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must be 1 to 8"):
        GroupedInteger(torch.zeros(2, 4, dtype=torch.int8), torch.ones(2, 1), bits=9, inputs=4, group=4)
    with pytest.raises(ValueError, match=r"\[-8, 7\]"):
        GroupedInteger.of(torch.tensor([[9]]), torch.ones(1, 1), bits=4, group=1)
    with pytest.raises(ValueError, match="scale is"):
        GroupedInteger.of(torch.zeros(2, 4), torch.ones(2, 3), bits=8, group=2)
    with pytest.raises(ValueError, match="float8_e4m3fn or float8_e5m2"):
        ScaledFloat8(torch.zeros(2, 2), torch.ones(1, 1), rows=2, columns=2)
    with pytest.raises(ValueError, match="has shape"):
        ScaledFloat8(torch.zeros(2, 2).to(torch.float8_e5m2), torch.ones(2, 2), rows=2, columns=2)
