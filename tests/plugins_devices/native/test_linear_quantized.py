"""Quantized native linear layers against float64 products of the dequantized weight, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed_quantized import Codebook, GroupedInteger, ScaledFloat8
from engine_devices._composite import linear_kernel
from engine_devices._linear import GATES, NativeLinear, activation_group
from engine_devices._weights import pack_integer

ROWS = [1, 2, 3, 8, 31, 32, 33, 100]
SHAPES = [(32, 64), (64, 256), (1, 1), (7, 13), (33, 31), (64, 257), (100, 96), (130, 1030)]
GROUPS = [0, 16, 32, 64, 128]
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 5e-3, torch.float16: 7e-4}


def dense(outputs, inputs, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) / inputs**0.5


def codebook(outputs, inputs, bits, group, dtype=torch.float16, outer=False, seed=3):
    """Codes of a table whose values bfloat16 holds: their products are those of the definition."""
    make = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (outputs, inputs), generator=make)
    table = torch.randn(1 << bits, generator=make).bfloat16().float()
    scale = (0.5 + torch.rand(outputs, -(-inputs // group), generator=make)) / inputs**0.5
    outers = 0.5 + torch.rand(outputs, generator=make) if outer else None
    return Codebook.of(codes, table, scale.to(dtype), bits=bits, group=group, outer=outers)


def activations(rows, inputs, dtype, seed=1):
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rounded(x, group):
    """The definition of 8-bit activations: round to nearest, ties to even, by max|x| / 127 of each group."""
    rows, inputs = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, -inputs % group)).view(rows, -1, group)
    most = padded.abs().amax(-1, keepdim=True)
    q = torch.where(most > 0, (padded * (torch.tensor(127.0) / most)).round(), 0.0)
    return (q.double() * (most / 127).double()).view(rows, -1)[:, :inputs]


def close(got, wanted, dtype):
    error = (got.double() - wanted).abs()
    assert (error <= TOLERANCE[dtype] * (wanted.abs() + 1.0)).all(), error.max()


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_integers_with_activations_as_they_are(native, bits, asymmetric, outputs, inputs):
    for group in GROUPS:
        packed = GroupedInteger.quantize(dense(outputs, inputs), bits=bits, group=group, asymmetric=asymmetric)
        kernel = NativeLinear(native, pack_integer(native, packed))
        weight = packed.dequantize(torch.float64)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for rows in ROWS if dtype == torch.bfloat16 else (1, 33):
                x = activations(rows, inputs, dtype)
                close(kernel.apply(x, None), x.double() @ weight.T, dtype)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_integers_with_rounded_activations(native, bits, asymmetric, outputs, inputs):
    for group in GROUPS:
        packed = GroupedInteger.quantize(dense(outputs, inputs), bits=bits, group=group, asymmetric=asymmetric)
        panels = pack_integer(native, packed)
        kernel = NativeLinear(native, panels, activation_group(panels.group, inputs))
        weight = packed.dequantize(torch.float64)
        bias = torch.randn(outputs).bfloat16()
        for rows in ROWS:
            x = activations(rows, inputs, torch.bfloat16)
            exact = rounded(x, activation_group(panels.group, inputs)) @ weight.T
            close(kernel.apply(x, None), exact, torch.bfloat16)
            close(kernel.apply(x, bias), exact + bias.double(), torch.bfloat16)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("group", [0, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_128_in_several_pieces(native, bits, group, asymmetric):
    """More inputs than rows share in the first-level cache; a row alone gets the same bits."""
    packed = GroupedInteger.quantize(dense(70, 2304), bits=bits, group=group, asymmetric=asymmetric)
    panels = pack_integer(native, packed)
    assert activation_group(panels.group, 2304) == 128
    kernel = NativeLinear(native, panels, 128)
    weight = packed.dequantize(torch.float64)
    for rows in (1, 6, 9, 33, 300):
        x = activations(rows, 2304, torch.bfloat16)
        got = kernel.apply(x, None)
        close(got, rounded(x, 128) @ weight.T, torch.bfloat16)
        for row in (0, rows // 2, rows - 1):
            assert torch.equal(got[row], kernel.apply(x[row : row + 1], None)[0])


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_float8(native, kind, outputs, inputs):
    values = (dense(outputs, inputs) * 100).to(kind)
    for rows_of, columns in ((outputs, inputs), (1, inputs), (128, 128), (5, 32), (1, 16)):
        scale = torch.rand(-(-outputs // rows_of), -(-inputs // columns)) / 100
        packed = ScaledFloat8(values, scale, rows=rows_of, columns=columns)
        kernel = linear_kernel(native, packed)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for rows in ROWS if dtype == torch.bfloat16 else (1, 33):
                x = activations(rows, inputs, dtype)
                close(kernel.apply(x, None), x.double() @ packed.dequantize(torch.float64).T, dtype)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_codes(native, bits, outputs, inputs):
    kinds = (torch.float8_e4m3fn, True), (torch.float8_e8m0fnu, False), (torch.float32, False), (torch.float16, True)
    for group, (scale, outer) in zip((16, 32, 64, inputs), kinds, strict=True):
        packed = codebook(outputs, inputs, bits, group, scale, outer)
        kernel = linear_kernel(native, packed)
        weight = packed.dequantize(torch.float64)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for rows in ROWS if dtype == torch.bfloat16 else (1, 33):
                x = activations(rows, inputs, dtype)
                close(kernel.apply(x, None), x.double() @ weight.T, dtype)


def test_a_table_that_bfloat16_does_not_hold_is_rounded_to_it_for_bfloat16_activations_alone(native):
    packed = codebook(64, 256, 4, 64)
    packed.table[:] = torch.linspace(-1, 1, 16)
    weight = packed.dequantize(torch.float64)
    x = activations(33, 256, torch.bfloat16)
    wanted = x.double() @ weight.T
    close(linear_kernel(native, packed).apply(x.float(), None), wanted, torch.float32)
    error = (linear_kernel(native, packed).apply(x, None).double() - wanted).norm() / wanted.norm()
    assert error <= 5e-3


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_float8_value(native, kind):
    values = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(kind).view(256, 1).repeat(1, 32)
    values[:, 1:] = 0
    packed = ScaledFloat8(values, torch.ones(1, 1), rows=256, columns=32)
    x = torch.zeros(1, 32)
    x[0, 0] = 1
    got = linear_kernel(native, packed).apply(x, None)[0]
    wanted = values[:, 0].float()
    assert torch.equal(got.nan_to_num(7e8, 8e8, 9e8), wanted.nan_to_num(7e8, 8e8, 9e8))


def kernels(native, outputs, inputs):
    for bits in (2, 3, 4, 5, 6, 8):
        packed = GroupedInteger.quantize(dense(outputs, inputs), bits=bits, group=32, asymmetric=True)
        panels = pack_integer(native, packed)
        yield NativeLinear(native, panels)
        yield NativeLinear(native, panels, 32)
    for bits in (4, 8):
        yield linear_kernel(native, codebook(outputs, inputs, bits, 16))
    values = dense(outputs, inputs).to(torch.float8_e4m3fn)
    yield linear_kernel(native, ScaledFloat8(values, torch.ones(1, 1), rows=outputs, columns=inputs))


def test_a_row_does_not_depend_on_its_neighbours(native):
    for kernel in kernels(native, 96, 515):
        x = activations(100, 515, torch.bfloat16)
        whole = kernel.apply(x, None)
        for first, rows in ((0, 1), (5, 2), (7, 3), (30, 8), (1, 9), (60, 33)):
            assert torch.equal(kernel.apply(x[first : first + rows], None), whole[first : first + rows])


def test_not_a_number_stays_one_and_no_rows_are_none(native):
    for kernel in kernels(native, 64, 70):
        x = activations(3, 70, torch.bfloat16)
        x[1, 5] = float("nan")
        got = kernel.apply(x, None)
        assert got[1].isnan().all()
        assert not got[[0, 2]].isnan().any()
        assert not kernel.apply(torch.zeros(2, 70, dtype=torch.bfloat16), None).isnan().any()
        assert kernel.apply(x[:0], None).shape == (0, 64)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_the_gate_and_the_residual(native, rows):
    for kernel in kernels(native, 192, 64):
        x = activations(rows, 64, torch.bfloat16) * 3
        out = torch.empty(rows, 96, dtype=torch.bfloat16)
        arguments, kept = kernel.arguments(x, None, out)
        arguments.gate, arguments.out_stride = GATES["silu"], 96
        native.run("engine_linear", arguments, *kept)
        left, right = kernel.apply(x, None).chunk(2, -1)
        wanted = torch.nn.functional.silu(left) * right
        assert ((out - wanted).abs() <= 1e-2 * (wanted.abs() + right.abs() + 1e-3)).all()
        residual, whole = activations(rows, 192, torch.bfloat16, 5), torch.empty(rows, 192, dtype=torch.bfloat16)
        arguments, kept = kernel.arguments(x, None, whole)
        arguments.residual, arguments.residual_stride = residual.data_ptr(), 192
        native.run("engine_linear", arguments, *kept)
        assert torch.equal(whole, kernel.apply(x, None) + residual)


def test_groups_that_the_kernels_have_no_loop_for_are_left_to_the_reference(native):
    assert linear_kernel(native, GroupedInteger.quantize(dense(32, 64), bits=4, group=8)) is None
    values = dense(32, 64).to(torch.float8_e4m3fn)
    assert linear_kernel(native, ScaledFloat8(values, torch.ones(1, 3), rows=32, columns=24)) is None


def test_tiny_scales_keep_their_digits(native):
    packed = GroupedInteger.quantize(dense(64, 64) * 1e-7, bits=8, group=32)
    x = activations(2, 64, torch.float32)
    wanted = x.double() @ packed.dequantize(torch.float64).T
    got = linear_kernel(native, packed).apply(x, None)
    assert ((got.double() - wanted).abs() <= 3e-6 * (wanted.abs() + 1e-7)).all()
