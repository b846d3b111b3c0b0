"""The largest output of each row, found by the product that makes them: as the operation that looks for it afterwards finds it."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed_quantized import GroupedInteger
from engine_devices._linear import NativeLinear, leaf_kernel
from engine_devices._operations import NativeOperations
from engine_devices._weights import pack_dense
from tests.plugins_devices.native.test_linear_dense import DTYPES, inputs_of, weights


def found_by(kernel: NativeLinear, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The product, and the largest of each row with its place."""
    native, rows = kernel.native, len(x)
    out = torch.empty(rows, kernel.panels.outputs, dtype=x.dtype)
    value, place = torch.full((rows,), 77.0), torch.full((rows,), 77)
    scratch = torch.empty(2 * native.threads * rows, dtype=torch.int64)
    arguments, kept = kernel.arguments(x, None, out)
    arguments.best_value, arguments.best_place, arguments.best_found = value.data_ptr(), place.data_ptr(), scratch.data_ptr()
    native.run("engine_linear", arguments, *kept)
    return out, value, place


def check(kernel: NativeLinear, x: torch.Tensor) -> torch.Tensor:
    """As the separate operation, to the bit; returns the product."""
    out, value, place = found_by(kernel, x)
    torch.testing.assert_close(out, kernel.apply(x, None), rtol=0, atol=0, equal_nan=True)
    wanted, where = NativeOperations(kernel.native).best(out)
    assert torch.equal(value.nan_to_num(1e30), wanted.nan_to_num(1e30))
    number = ~wanted.isnan()
    assert torch.equal(place[number], where[number])
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 31, 32, 33, 64, 1000, 5003])
def test_it_is_what_the_operation_finds(native, dtype, outputs):
    kernel = NativeLinear(native, pack_dense(native, [weights(outputs, 40, dtype)]))
    for rows in (1, 2, 9, 70, 300):
        check(kernel, inputs_of(rows, 40, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_among_equals(native, dtype):
    weight = weights(16, 40, dtype).repeat(40, 1)
    out = check(NativeLinear(native, pack_dense(native, [weight])), inputs_of(5, 40, dtype))
    assert torch.equal(out[:, :16], out[:, 320:336])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 31, 32, 639, 640, 649])
def test_what_is_no_number_is_found(native, dtype, place):
    weight = weights(650, 40, dtype)
    weight[place:, 3] = float("nan")
    out = check(NativeLinear(native, pack_dense(native, [weight])), inputs_of(5, 40, dtype))
    assert out[:, place:].isnan().all()
    assert not out[:, :place].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [20, 200])
def test_infinities(native, dtype, outputs):
    """Also where nothing else is there: the first place then."""
    kernel = NativeLinear(native, pack_dense(native, [torch.full((outputs, 2), -float("inf"), dtype=dtype)]))
    for x in (torch.ones(3, 2), -torch.ones(3, 2)):
        assert found_by(kernel, x.to(dtype))[2].tolist() == [0, 0, 0]
        check(kernel, x.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [4, 8])
def test_of_quantized_weights(native, dtype, bits):
    packed = GroupedInteger.quantize(weights(300, 256, torch.float32), bits=bits, group=64)
    kernel = leaf_kernel(native, packed)
    for rows in (1, 7, 40):
        check(kernel, inputs_of(rows, 256, dtype))


def test_no_rows(native):
    kernel = NativeLinear(native, pack_dense(native, [weights(40, 40, torch.float32)]))
    check(kernel, inputs_of(0, 40, torch.float32))
