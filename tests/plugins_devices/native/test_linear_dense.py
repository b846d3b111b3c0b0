"""Dense native linear layers against float64, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from engine_devices._linear import GATES, NativeLinear
from engine_devices._weights import pack_dense

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROWS = [1, 2, 3, 8, 31, 32, 33, 100]
SHAPES = [(32, 64), (1, 1), (7, 13), (33, 31), (64, 257), (100, 96), (130, 1030), (96, 4098)]
#: Relative error of one rounding to the output's dtype, with room for sums in float32.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 5e-3, torch.float16: 7e-4}


def weights(outputs, inputs, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(outputs, inputs, generator=generator) / inputs**0.5).to(dtype)


def inputs_of(rows, inputs, dtype, seed=1):
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(got, wanted, dtype):
    error = (got.double() - wanted).abs()
    # Sums of many terms of either sign: relative to the size of the terms, not of what is left of them.
    assert (error <= TOLERANCE[dtype] * (wanted.abs() + 1.0)).all(), error.max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_products(native, dtype, outputs, inputs):
    weight = weights(outputs, inputs, dtype)
    kernel = NativeLinear(native, pack_dense(native, [weight]))
    bias = torch.randn(outputs).to(dtype)
    for rows in ROWS:
        x = inputs_of(rows, inputs, dtype)
        exact = x.double() @ weight.double().T
        close(kernel.apply(x, None), exact, dtype)
        close(kernel.apply(x, bias), exact + bias.double(), dtype)


@pytest.mark.parametrize("inputs", [515, 1088])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(native, dtype, inputs):
    weight = weights(96, inputs, dtype)
    kernel = NativeLinear(native, pack_dense(native, [weight]))
    x = inputs_of(100, inputs, dtype)
    whole = kernel.apply(x, None)
    for first, rows in ((0, 1), (5, 2), (7, 3), (30, 8), (1, 9), (60, 33)):
        assert torch.equal(kernel.apply(x[first : first + rows], None), whole[first : first + rows])


@pytest.mark.parametrize("inputs", [50, 416])
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_and_activations_of_different_types(native, dtype, x_dtype, inputs):
    weight = weights(40, inputs, dtype)
    x = inputs_of(9, inputs, x_dtype)
    got = NativeLinear(native, pack_dense(native, [weight])).apply(x, None)
    assert got.dtype == x_dtype
    close(got, x.double() @ weight.double().T, x_dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows(native, dtype):
    kernel = NativeLinear(native, pack_dense(native, [weights(32, 32, dtype)]))
    assert kernel.apply(torch.empty(0, 32, dtype=dtype), None).shape == (0, 32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_lie_apart_and_more_axes(native, dtype):
    weight = weights(40, 48, dtype)
    kernel = NativeLinear(native, pack_dense(native, [weight]))
    wide = inputs_of(6, 100, dtype)
    close(kernel.apply(wide[:, 3:51], None), wide[:, 3:51].double() @ weight.double().T, dtype)
    deep = wide[:, :96].reshape(3, 4, 48)
    close(kernel.apply(deep, None), deep.double() @ weight.double().T, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 9, 70])
def test_the_residual_is_added_as_a_separate_layer_would(native, dtype, rows):
    kernel = NativeLinear(native, pack_dense(native, [weights(70, 40, dtype)]))
    x, residual, bias = inputs_of(rows, 40, dtype), inputs_of(rows, 70, dtype, 5), inputs_of(1, 70, dtype, 6)[0]
    out = torch.empty(rows, 70, dtype=dtype)
    arguments, kept = kernel.arguments(x, bias, out)
    arguments.residual, arguments.residual_stride = residual.data_ptr(), 70
    native.run("engine_linear", arguments, *kept)
    assert torch.equal(out, kernel.apply(x, bias) + residual)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("rows", [1, 9, 70])
def test_the_gate_is_applied_as_a_separate_layer_would(native, dtype, gate, rows):
    inner = 96
    kernel = NativeLinear(native, pack_dense(native, [weights(2 * inner, 40, dtype)]))
    x, bias = inputs_of(rows, 40, dtype) * 3, inputs_of(1, 2 * inner, dtype, 6)[0]
    out = torch.empty(rows, inner, dtype=dtype)
    arguments, kept = kernel.arguments(x, bias, out)
    arguments.gate, arguments.out_stride = GATES[gate], inner
    native.run("engine_linear", arguments, *kept)
    left, right = kernel.apply(x, bias).chunk(2, -1)
    function = torch.nn.functional.silu if gate == "silu" else torch.nn.GELU("tanh")
    wanted = function(left) * right
    # The exponential is not torch's: one rounding of the gate may fall to the other side.
    assert ((out - wanted).abs() <= 2 * TOLERANCE[dtype] * (wanted.abs() + right.abs() + 1e-3)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_stays_one(native, dtype):
    weight = weights(64, 32, dtype)
    x = inputs_of(3, 32, dtype)
    x[1, 5] = float("nan")
    got = NativeLinear(native, pack_dense(native, [weight])).apply(x, None)
    assert got[1].isnan().all()
    assert not got[[0, 2]].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), [(70, 33), (64, 64), (1, 5)])
def test_rows_of_the_weight(native, dtype, outputs, inputs):
    weight = weights(outputs, inputs, dtype)
    kernel = NativeLinear(native, pack_dense(native, [weight]))
    ids = torch.tensor([0, outputs - 1, outputs // 2, 0])
    assert torch.equal(kernel.gather(ids), weight[ids])
    assert torch.equal(kernel.gather(ids, 8.1), weight[ids] * torch.tensor(8.1, dtype=dtype))
    assert kernel.gather(ids[:0]).shape == (0, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(64, 32, 32), (64, 33), (33, 64, 7), (70,)])
def test_parts_that_stand_apart_are_packed_as_one_weight(native, dtype, sizes):
    weight = weights(sum(sizes), 40, dtype)
    x = inputs_of(5, 40, dtype)
    whole = NativeLinear(native, pack_dense(native, [weight])).apply(x, None)
    # parts of wider tensors, as a shard of inputs is
    pieces = [torch.cat([part, part], 1)[:, :40] for part in weight.split(sizes)]
    assert torch.equal(NativeLinear(native, pack_dense(native, pieces)).apply(x, None), whole)
