"""The canonical layouts beyond grouped integers: each against its definition written out, by rows, and through its kernel."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed import DensePacked, ReferenceKernel
from engine.layers.packed_composite import composite_kernel
from engine.layers.packed_integer import PLANES, pack_planes, row_bytes, unpack_planes
from engine.layers.packed_joining import join
from engine.layers.packed_quantized import (
    E2M1,
    ActivationRounding,
    AdditiveCodebooks,
    BlockKind,
    Codebook,
    GroupedInteger,
    Joined,
    Permuted,
    RoundedInputs,
    RowBlocks,
    ScaledFloat8,
    SharedScales,
    Sparse24,
)  # fmt: skip


def kernel(packed):
    return composite_kernel(packed, kernel) or ReferenceKernel(packed)


def agree(packed, weight):
    """Whole, by rows, by numbers and through the kernel the packed weight is ``weight``."""
    assert (packed.outputs, packed.inputs) == tuple(weight.shape)
    assert torch.equal(packed.dequantize(torch.float32), weight)
    assert torch.equal(packed.take(slice(1, 4), torch.float32), weight[1:4])
    numbers = torch.tensor([2, 0, 2, len(weight) - 1])
    assert torch.equal(packed.take(numbers, torch.float32), weight[numbers])
    x, bias = torch.randn(3, packed.inputs), torch.randn(packed.outputs)
    made, wanted = kernel(packed), x @ weight.T + bias
    # Where large products cancel, a sum's rounding is relative to them.
    near = {"rtol": 1e-5, "atol": max(1e-5, 1e-6 * wanted.abs().max().item())}
    torch.testing.assert_close(made.apply(x, bias), wanted, **near)
    if isinstance(made, ReferenceKernel):
        made.at_once = 2
        torch.testing.assert_close(made.apply(x, bias), wanted, **near)


@pytest.mark.parametrize("bits", sorted(PLANES))
@pytest.mark.parametrize("inputs", [1, 7, 32, 45])
def test_planes_hold_every_bit_once(bits, inputs):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    integers = torch.randint(low, high + 1, (6, inputs))
    packed = pack_planes(integers, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (6, row_bytes(bits, inputs))
    assert torch.equal(unpack_planes(packed, inputs, bits), integers.to(torch.int8))
    assert row_bytes(bits, 64) == 8 * bits


def test_three_bits_by_hand():
    # u = 1, 6, 3, 4, 7: low two bits 1 2 3 0 | 3, third bits 0 1 0 1 1
    packed = pack_planes(torch.tensor([[1, 6, 3, 4, 7]]) - 4, 3)
    assert packed.tolist() == [[0b00_11_10_01, 0b11, 0b11010]]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_grouped_integers(bits):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values, scale, shift = torch.randint(low, high + 1, (6, 50)), torch.rand(6, 4), torch.randn(6, 4)
    groups = torch.arange(50) // 16
    packed = GroupedInteger.of(values, scale, shift, bits=bits, group=16)
    assert torch.equal(packed.integers(), values.to(torch.int8))
    agree(packed, values.float() * scale[:, groups] + shift[:, groups])


@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 16)])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8(shape, dtype):
    rows, columns = shape
    values = torch.randn(7, 40).to(dtype)
    scale = torch.rand(-(-7 // rows), -(-40 // columns)) + 0.1
    wide = scale.repeat_interleave(rows, 0)[:7].repeat_interleave(columns, 1)[:, :40]
    agree(ScaledFloat8(values, scale, rows=rows, columns=columns), values.float() * wide)


def test_float8_rounds_to_the_nearest():
    weight = torch.randn(20, 70)
    for rows, columns in ((0, 0), (1, 0), (8, 32)):
        packed = ScaledFloat8.quantize(weight, rows=rows, columns=columns)
        error = (packed.dequantize(torch.float32) - weight).abs()
        assert (error <= weight.abs() / 15.9 + packed.scale.max() * 2**-9).all()


@pytest.mark.parametrize("scale_dtype", [torch.float16, torch.float32, torch.float8_e4m3fn, torch.float8_e8m0fnu])
@pytest.mark.parametrize("outer", [False, True])
def test_codebooks(scale_dtype, outer):
    codes = torch.randint(0, 16, (5, 37))
    scale = (torch.rand(5, 3) + 0.5).to(scale_dtype)
    factors = torch.rand(5) if outer else None
    groups = torch.arange(37) // 16
    wide = scale.float() if factors is None else scale.float() * factors.unsqueeze(1)
    packed = Codebook.of(codes, torch.tensor(E2M1), scale, bits=4, group=16, outer=factors)
    agree(packed, torch.tensor(E2M1)[codes] * wide[:, groups])
    assert packed.codes.shape == (5, 19) and torch.equal(packed.unpacked(), codes.to(torch.uint8))
    assert int(packed.codes[0, 0]) & 15 == int(codes[0, 0])
    assert torch.equal(packed.expanded_scale(), wide)


def test_codebooks_of_bytes():
    codes, table = torch.randint(0, 256, (5, 8)), torch.randn(256)
    agree(Codebook.of(codes, table, torch.full((5, 2), 2.0), bits=8, group=4), table[codes] * 2)


def test_blocks():
    kind = BlockKind("pairs", 4, 2, lambda blocks: torch.cat((blocks & 15, blocks >> 4), 1).float())
    rows = torch.randint(0, 256, (6, 8), dtype=torch.uint8)
    blocks = rows.view(6, 4, 2)
    agree(RowBlocks(rows, kind, inputs=16), torch.cat((blocks & 15, blocks >> 4), 2).view(6, 16).float())
    with pytest.raises(ValueError, match="inputs is 15"):
        RowBlocks(rows, kind, inputs=15)
    with pytest.raises(ValueError, match="rows of 10"):
        RowBlocks(rows, kind, inputs=20)


@pytest.mark.parametrize("bits", range(1, 9))
def test_scales_that_outputs_share(bits):
    codes, rows = torch.randint(0, 1 << bits, (6, 19), dtype=torch.uint8), torch.tensor([0, 2, 1, 0, 2, 2], dtype=torch.int32)
    scale, zero = torch.rand(3, 19).half() + 0.5, torch.rand(3, 19).half() * (1 << bits)
    weight = torch.stack([(codes[o] - zero[rows[o]].float()) * scale[rows[o]].float() for o in range(6)])
    packed = SharedScales.of(codes, scale, zero, rows, bits=bits)
    agree(packed, weight)
    agree(packed.share([(1, 2), (4, 2)], 3, 8), weight[[1, 2, 4, 5], 3:11])
    assert packed.share([(0, 1)], 0, 19).scale.shape == (1, 19)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 1\]"):
        SharedScales.of(codes, scale[:2], zero[:2], rows, bits=bits)
    with pytest.raises(ValueError, match="zero is torch.float16"):
        SharedScales.of(codes, scale, zero[:2], rows, bits=bits)


@pytest.mark.parametrize("tall", [1, 2])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_additive_codebooks(tall, dtype):
    entries = 256 if dtype == torch.uint8 else 65536
    codes = torch.randint(0, entries, (6 // tall, 4, 2))
    books, scales = torch.randn(2, entries, tall, 8).half(), torch.rand(6 // tall) + 0.5
    weight = torch.zeros(6, 32)
    for row in range(6):
        for group in range(4):
            vector = sum(books[c, codes[row // tall, group, c], row % tall].float() for c in range(2))
            weight[row, group * 8 : group * 8 + 8] = vector * scales[row // tall]
    agree(AdditiveCodebooks(codes.to(dtype), books, scales), weight)
    with pytest.raises(ValueError, match=r"codes must be in \[0, 99\]"):
        AdditiveCodebooks(codes.clamp(min=100).to(dtype), books[:, :100], scales)


def test_sparse():
    dense = torch.randn(6, 24)
    positions = torch.stack([torch.stack([torch.randperm(4)[:2].sort().values for _ in range(6)]).flatten() for _ in range(6)])
    places = positions + torch.arange(12) // 2 * 4
    kept = dense.gather(1, places)
    weight = torch.zeros_like(dense).scatter_(1, places, kept)
    agree(Sparse24.of(DensePacked(kept), positions), weight)
    integers = GroupedInteger.quantize(kept, bits=4, group=6)
    agree(Sparse24.of(integers, positions), torch.zeros_like(dense).scatter_(1, places, integers.dequantize(torch.float32)))
    with pytest.raises(ValueError, match="twice"):
        Sparse24.of(DensePacked(kept), torch.zeros_like(positions))


def test_composites():
    weight, order = torch.randn(7, 12), torch.randperm(12)
    agree(Permuted(DensePacked(weight[:, order]), order), weight)
    other = GroupedInteger.quantize(torch.randn(3, 12), bits=4, group=4)
    both = Joined([Permuted(DensePacked(weight[:, order]), order), other])
    agree(both, torch.cat([weight, other.dequantize(torch.float32)]))
    assert both.nbytes() == 7 * 12 * 4 + 12 * 8 + other.nbytes()
    with pytest.raises(ValueError, match="twice or not at all"):
        Permuted(DensePacked(weight), torch.zeros(12, dtype=torch.int64))
    with pytest.raises(ValueError, match="same inputs"):
        Joined([other, DensePacked(torch.ones(2, 13))])


def test_columns_that_fill_up_a_group_meet_zeros():
    weight, order = torch.randn(7, 12), torch.randperm(12)
    filled = torch.cat([order[:5], torch.tensor([-1, -1, -1]), order[5:], torch.tensor([-1])])
    inner = torch.where(filled >= 0, weight[:, filled.clamp(min=0)], torch.tensor(99.0))
    agree(Permuted(DensePacked(inner), filled), weight)
    with pytest.raises(ValueError, match="twice or not at all"):
        Permuted(DensePacked(inner), filled.where(filled != 3, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_inputs_are_rounded_before_the_product(dtype):
    weight, x, bias = torch.randn(5, 32), torch.randn(3, 32).to(dtype), torch.randn(5).to(dtype)
    packed = RoundedInputs(DensePacked(weight), ActivationRounding("int8"))
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    wanted = ((x.float() / scale).round() * scale) @ weight.T + bias.float()
    got = kernel(packed).apply(x, bias)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), wanted, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-4)
    assert torch.equal(packed.dequantize(torch.float32), weight)


def test_parts_of_one_layout_become_one_weight():
    weights = [torch.randn(outputs, 32) for outputs in (4, 2, 6)]
    codes = [torch.randint(0, 16, weight.shape) for weight in weights]
    table = torch.randn(16)
    kinds = {
        "integers": [GroupedInteger.quantize(weight, bits=4, group=8, asymmetric=True) for weight in weights],
        "codebooks": [Codebook.of(code, table, torch.rand(len(code), 2).to(torch.float8_e4m3fn), bits=4, group=16) for code in codes],
        "floats": [ScaledFloat8.quantize(weight, rows=1) for weight in weights],
        "dense": [DensePacked(weight) for weight in weights],
    }
    for name, parts in kinds.items():
        whole = join(parts)
        assert type(whole) is type(parts[0]), name
        agree(whole, torch.cat([part.dequantize(torch.float32) for part in parts]))
    other = Codebook.of(codes[0], torch.randn(16), torch.rand(4, 2), bits=4, group=16)
    others = {"integers": GroupedInteger.quantize(weights[0], bits=8), "codebooks": other, "floats": ScaledFloat8.quantize(weights[1])}
    for parts in ([kinds["integers"][0], kinds["dense"][0]], *([kinds[name][0], each] for name, each in others.items())):
        assert isinstance(join(parts), Joined)
        agree(join(parts), torch.cat([part.dequantize(torch.float32) for part in parts]))
