"""Rounding of activations, each form by its formula."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed_quantized import E2M1
from engine.layers.rounding import ActivationRounding, round_e2m1


def test_static_scale_and_zero():
    x = torch.tensor([[0.0, 1.0, -1.0, 100.0]])
    rounding = ActivationRounding("int8", scale=torch.tensor([0.5]), zero=torch.tensor([3], dtype=torch.int8))
    assert rounding.round(x).tolist() == [[0.0, 1.0, -1.0, (127 - 3) * 0.5]]


def test_rows_tensor_and_groups():
    x = torch.tensor([[1.0, -127.0, 63.2, 0.4], [2.0, 1.0, 0.0, -0.5]])
    assert ActivationRounding("int8").round(x)[0].tolist() == [1.0, -127.0, 63.0, 0.0]
    assert ActivationRounding("int8", group=-1).round(x)[1].tolist() == [2.0, 1.0, 0.0, 0.0]
    halves = ActivationRounding("int8", group=2).round(x)
    torch.testing.assert_close(halves[0], torch.tensor([1.0, -127.0, 63.2, 63.2 / 127 * round(0.4 / 63.2 * 127)]))
    assert torch.equal(ActivationRounding("int8", group=3).round(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_upper_bound_and_divisor():
    x = torch.tensor([[1000.0, 3.0]])
    capped = ActivationRounding("float8_e4m3fn", upper=448.0).round(x)
    assert capped.tolist() == [[448.0, 3.0]]
    assert ActivationRounding("int8", top=127.5).round(torch.tensor([[127.5, 1.2]])).tolist() == [[127.0, 1.0]]


def test_asymmetric_rows_keep_zero():
    x = torch.rand(4, 64) * 3 - 1
    x[:, 0] = 0
    rounded = ActivationRounding("int8", asymmetric=True).round(x)
    step = (x.amax(-1) - x.amin(-1)) / 255
    assert (rounded[:, 0] == 0).all()
    assert ((rounded - x).abs() <= step.unsqueeze(-1) * 1.01).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_e2m1_is_nearest_with_ties_to_even(sign):
    values = torch.linspace(0, 8, 3201)
    table = torch.tensor(E2M1[:8])
    distance = (values.unsqueeze(1) - table).abs()
    best = distance.min(1, keepdim=True).values
    codes = torch.arange(8).expand_as(distance)
    nearest = torch.where(distance == best, codes + 100 * (codes % 2), 1000).argmin(1)
    assert torch.equal(round_e2m1(values * sign), table[nearest] * sign)


def test_two_levels_of_scales():
    x = torch.randn(3, 64) * 5
    outer = x.abs().max() / (448 * 6)
    got = ActivationRounding("e2m1", scale=outer, group=16, scale_dtype=torch.float8_e4m3fn).round(x)
    blocks = x.view(3, 4, 16)
    scale = (blocks.abs().amax(-1, keepdim=True) / 6 / outer).to(torch.float8_e4m3fn).float() * outer
    torch.testing.assert_close(got, (round_e2m1(blocks / scale) * scale).view(3, 64))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="kind is 'int4'"):
        ActivationRounding("int4")
    with pytest.raises(ValueError, match="zero points need the kind int8"):
        ActivationRounding("e2m1", asymmetric=True)
    with pytest.raises(ValueError, match="one element"):
        ActivationRounding("int8", scale=torch.ones(2))
    with pytest.raises(ValueError, match="group is -2"):
        ActivationRounding("int8", group=-2)
