"""Native kernels of weights made of others, against the core's and the definition of rounding."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed import DensePacked, reference_kernel
from engine.layers.packed_composite import composite_kernel
from engine.layers.packed_quantized import (
    E2M1,
    ActivationRounding,
    Codebook,
    GroupedInteger,
    Joined,
    Permuted,
    RoundedInputs,
    ScaledFloat8,
    ScaledInputs,
)  # fmt: skip
from engine_devices._composite import NativeIntegers, NativeRounded, linear_kernel
from engine_devices._recorder import TapeRecorder

OUTPUTS, INPUTS = 72, 150
ROWS = (1, 3, 9, 33)
STATIC = torch.tensor(0.03)


def dense(outputs=OUTPUTS, inputs=INPUTS, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) / inputs**0.5


def activations(rows, dtype=torch.bfloat16, seed=1):
    return torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(seed)).to(dtype)


def reference(packed):
    return composite_kernel(packed, reference) or reference_kernel(packed)


def integers(bits=8, group=0, outputs=OUTPUTS, inputs=INPUTS):
    return GroupedInteger.quantize(dense(outputs, inputs), bits=bits, group=group)


def exact(packed):
    packed.exact = True
    return packed


def float8():
    return ScaledFloat8.quantize(dense() * 50, rows=1)


def e2m1():
    codes = torch.randint(0, 16, (OUTPUTS, INPUTS), generator=torch.Generator().manual_seed(4))
    scale, outer = torch.rand(OUTPUTS, 10).to(torch.float8_e4m3fn), torch.rand(OUTPUTS)
    return Codebook.of(codes, torch.tensor(E2M1), scale, bits=4, group=16, outer=outer)


ROUNDINGS = [
    ActivationRounding("int8"),
    ActivationRounding("int8", top=127.5),
    ActivationRounding("int8", upper=1.5),
    ActivationRounding("int8", scale=STATIC),
    ActivationRounding("int8", scale=STATIC, zero=torch.tensor(5.0)),
    ActivationRounding("int8", asymmetric=True),
    ActivationRounding("int8", asymmetric=True, group=-1),
    ActivationRounding("int8", group=-1),
    ActivationRounding("int8", group=32),
    ActivationRounding("float8_e4m3fn"),
    ActivationRounding("float8_e4m3fn", upper=2.0),
    ActivationRounding("float8_e4m3fn", scale=STATIC / 8),
    ActivationRounding("float8_e4m3fn", group=-1),
    ActivationRounding("float8_e4m3fn", group=128),
    ActivationRounding("float8_e5m2"),
    ActivationRounding("e2m1", group=16, scale=torch.tensor(0.001), scale_dtype=torch.float8_e4m3fn),
    ActivationRounding("e2m1", group=32, scale_dtype=torch.float8_e8m0fnu),
    ActivationRounding("e2m1"),
]
NAMES = [f"{r.kind} {r.group} {r.upper} {r.top} {r.scale is not None} {r.asymmetric}" for r in ROUNDINGS]


def rounded_by(native, rounding, x):
    """What the native kernel multiplies, seen through a weight that picks it."""
    eye = DensePacked(torch.eye(x.shape[1]))
    kernel = linear_kernel(native, RoundedInputs(eye, rounding))
    assert isinstance(kernel, NativeRounded)
    out = torch.empty(x.shape)
    kernel.into(x, None, out)
    return out


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_activations_are_rounded_as_the_definition_says(native, rounding, dtype):
    for rows in (1, 5, 70):
        x = activations(rows, dtype)
        x[0, :20] = 0
        x[-1, -30:] *= 1e-3
        assert torch.equal(rounded_by(native, rounding, x), rounding.round(x))
    zeros = torch.zeros(2, INPUTS, dtype=dtype)
    assert torch.equal(rounded_by(native, rounding, zeros), rounding.round(zeros))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "e2m1", "int8"])
def test_ties_and_edges_are_rounded_as_the_definition_says(native, kind):
    x = torch.cat([torch.linspace(-7, 7, 2241), torch.tensor([1e-9, -1e-9, 2.0**-9, 3 * 2.0**-10, 448.0, 460.0, 1e6, -1e6])]).repeat(2, 1)
    rounding = ActivationRounding(kind, scale=torch.tensor(1.0))
    assert torch.equal(rounded_by(native, rounding, x), rounding.round(x))


def test_not_a_number_stays_in_its_row(native):
    for packed in (integers(), float8(), e2m1()):
        kernel = linear_kernel(native, RoundedInputs(packed, ActivationRounding("int8")))
        x = activations(3)
        x[1, 7] = float("nan")
        got = kernel.apply(x, None)
        assert got[1].isnan().all()
        assert not got[[0, 2]].isnan().any()


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=NAMES)
def test_products_of_rounded_activations(native, rounding):
    bias = torch.randn(OUTPUTS, generator=torch.Generator().manual_seed(9)).bfloat16()
    for inner in (exact(integers()), exact(integers(4, 32)), exact(integers(6, 64)), integers(8, 16), float8(), e2m1()):
        packed = RoundedInputs(inner, rounding)
        kernel, weight = linear_kernel(native, packed), packed.dequantize(torch.float64)
        for rows in ROWS:
            x = activations(rows)
            wanted = rounding.round(x).double() @ weight.T + bias.double()
            error = (kernel.apply(x, bias).double() - wanted).abs()
            assert (error <= 5e-3 * (wanted.abs() + 1)).all(), error.max()


def test_integers_meet_integers(native):
    for rounding in ROUNDINGS[:4]:
        for inner in (integers(), integers(4, 32), integers(2, 64), integers(8, 16)):
            kernel = linear_kernel(native, RoundedInputs(inner, rounding))
            assert isinstance(kernel, NativeIntegers)
            x = activations(40, torch.float32)
            wanted = rounding.round(x).double() @ inner.dequantize(torch.float64).T
            assert (kernel.apply(x, None).double() - wanted).norm() <= 1e-6 * wanted.norm()


def composites():
    order = torch.randperm(INPUTS, generator=torch.Generator().manual_seed(2))
    filled = torch.cat([order[:100], torch.full((10,), -1), order[100:]])
    yield Permuted(exact(integers(4, 32)), order)
    yield Permuted(exact(integers(4, 32, inputs=160)), filled)
    yield Joined([exact(integers(4, 32, outputs=40)), DensePacked(dense(33)), ScaledFloat8.quantize(dense(7))])
    yield Joined([Permuted(exact(integers(4, 32)), order), Permuted(exact(integers(8, 64)), order.flip(0))])
    yield ScaledInputs(exact(integers()), torch.rand(INPUTS, generator=torch.Generator().manual_seed(6)))
    yield Joined([RoundedInputs(integers(), ROUNDINGS[0]), RoundedInputs(float8(), ROUNDINGS[9])])
    yield RoundedInputs(Permuted(exact(integers(4, 32)), order), ROUNDINGS[0])
    yield ScaledInputs(RoundedInputs(integers(), ROUNDINGS[0]), torch.rand(INPUTS, generator=torch.Generator().manual_seed(6)))


def test_composites_give_what_the_core_makes_of_the_parts(native):
    for packed in composites():
        bias = torch.randn(packed.outputs, generator=torch.Generator().manual_seed(7))
        core, kernel = reference(packed), linear_kernel(native, packed)
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            for rows in ROWS:
                x = activations(rows, dtype)
                wanted = core.apply(x.float() if dtype == torch.float32 else x, bias.to(dtype)).float()
                got = kernel.apply(x, bias.to(dtype))
                assert got.dtype == dtype
                assert (got.float() - wanted).norm() <= limit * wanted.norm()


def test_composites_are_recorded_and_replayed(native):
    for packed in composites():
        kernel = linear_kernel(native, packed)
        x = activations(12).clone()
        bias = torch.randn(packed.outputs).bfloat16()
        replay = TapeRecorder(native).record(lambda kernel=kernel, x=x, bias=bias: (kernel.apply(x, bias),))
        x.copy_(activations(12, seed=5))
        assert torch.equal(replay.run()[0], kernel.apply(x, bias))


def test_steps_of_any_rows_are_replayed(native):
    """Groups of −1 aside, which look at rows that a step leaves out."""
    for packed in composites():
        kernel = linear_kernel(native, packed)
        x = activations(200).clone()
        replay = TapeRecorder(native).record_ragged(
            lambda *_: None, lambda rows, *_, kernel=kernel, x=x: (kernel.apply(x[:rows], None),)
        )  # fmt: skip
        for rows in (11, 64, 200, 65):
            x.copy_(activations(200, seed=rows))
            assert torch.equal(replay.run(rows, 1)[0], kernel.apply(x[:rows], None))


def test_a_quantized_embedding_is_recorded(native):
    ids = torch.arange(12)
    for packed in (integers(), integers(3, 32), float8(), e2m1()):
        kernel = linear_kernel(native, packed)
        replay = TapeRecorder(native).record(lambda kernel=kernel: (kernel.gather(ids, 2.0, torch.bfloat16),))
        ids.copy_(torch.randint(0, OUTPUTS, (12,)))
        assert torch.equal(replay.run()[0], packed.take(ids, torch.bfloat16) * 2)


def test_a_part_that_has_no_kernel_leaves_the_others_their_memory(native):
    first = DensePacked(dense(), exclusive=True)
    packed = Joined([first, integers(4, 24)])
    assert linear_kernel(native, packed) is None
    assert first.weight.untyped_storage().nbytes()


def test_parts_are_columns_of_the_whole(native):
    """Outputs from any panel to any other, of every layout; parts between panels there are none."""
    for packed in composites():
        kernel, x = linear_kernel(native, packed), activations(5)
        bias = torch.randn(packed.outputs)
        whole, parts = kernel.apply(x, bias), 0
        for begin, end in ((0, 32), (32, packed.outputs), (32, 64), (0, packed.outputs), (40, 64)):
            part = kernel.part(begin, end)
            if part is not None:
                parts += 1
                assert torch.equal(part.apply(x, bias[begin:end]), whole[:, begin:end])
        assert parts >= 1
