"""Native operations of layers against the torch ones, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.layers.operations import TorchOperations
from engine.plugin.contracts.operations import ACTIVATIONS
from engine_devices._operations import NativeOperations

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: In units of the result's size: a rounding more or less.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
TRUTH = TorchOperations()


@pytest.fixture
def ops(native):
    return NativeOperations(native)


def normal(*shape, dtype=torch.float32, seed=0, scale=1.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def close(got, wanted):
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert got.is_contiguous()
    error = torch.where(got == wanted, 0.0, (got.double() - wanted.double()).abs())  # infinities too
    assert (error <= TOLERANCE[wanted.dtype] * (wanted.double().abs() + 0.5)).all(), error.max()


def shapes():
    """Contiguous rows, rows that lie apart, heads inside a fused projection, long rows, none."""
    yield lambda dtype: normal(5, 1024, dtype=dtype)
    yield lambda dtype: normal(1, 9001, dtype=dtype)
    yield lambda dtype: normal(33, 200, dtype=dtype)[:, 7:104]
    yield lambda dtype: normal(6, 12 * 72, dtype=dtype)[:, 72 : 72 * 9].view(6, 8, 72)
    yield lambda dtype: normal(2, 2, 3, 16, dtype=dtype)
    yield lambda dtype: normal(0, 64, dtype=dtype)
    yield lambda dtype: normal(40, 6, dtype=dtype)


MAKERS = list(shapes())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", MAKERS)
def test_norms(ops, dtype, make):
    x = make(dtype)
    size = x.shape[-1]
    weight, bias = normal(size, dtype=dtype, seed=1), normal(size, dtype=dtype, seed=2)
    close(ops.rms_norm(x, weight, 1e-6), TRUTH.rms_norm(x, weight, 1e-6))
    close(ops.rms_norm(x, weight, 1e-5, offset=1.0), TRUTH.rms_norm(x, weight, 1e-5, offset=1.0))
    close(ops.layer_norm(x, weight, bias, 1e-5), TRUTH.layer_norm(x, weight, bias, 1e-5))
    close(ops.layer_norm(x + 3, None, None, 1e-5), TRUTH.layer_norm(x + 3, None, None, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", MAKERS)
def test_add(ops, dtype, make):
    x = make(dtype)
    y = normal(*x.shape, dtype=dtype, seed=3)
    assert torch.equal(ops.add(x, y), x + y)
    assert torch.equal(ops.add(y, x), x + y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(ops, dtype, name):
    for scale in (1.0, 30.0, 1e-3):
        x = normal(3, 5002, dtype=dtype, scale=scale)
        # In float64: torch's own float32 gelu cancels where 1 + erf is small.
        close(ops.activate(x, name), TRUTH.activate(x.double(), name).to(dtype))
        close(ops.gate(x, name), TRUTH.gate(x.double(), name).to(dtype))
    apart = normal(9, 100, dtype=dtype)[:, 4:90]
    close(ops.gate(apart, name), TRUTH.gate(apart.double(), name).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_soft_cap(ops, dtype):
    for scale in (0.1, 5.0, 300.0):
        x = normal(4, 1000, dtype=dtype, scale=scale)
        wanted = (torch.tanh(x.double() / 30) * 30).to(dtype)
        close(ops.soft_cap(x, 30.0), wanted)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_comes_through_and_large_values_do_not_make_one(ops, name):
    x = torch.tensor([[float("nan"), 0.0, -0.0, 1e10, -1e10, 200.0, -200.0]])
    got, wanted = ops.activate(x, name), TRUTH.activate(x.double(), name).float()
    assert got.isnan().tolist() == [[True, *[False] * 6]]
    assert torch.allclose(got[:, 1:], wanted[:, 1:], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embed(ops, dtype):
    weight = normal(50, 130, dtype=dtype)
    ids = torch.randint(0, 46, (70,))
    assert torch.equal(ops.embed(ids, weight), weight[ids])
    assert torch.equal(ops.embed(ids, weight, offset=2), weight[ids + 2])
    assert torch.equal(ops.embed(ids, weight, scale=11.3), TRUTH.embed(ids, weight, scale=11.3))
    assert ops.embed(ids[:0], weight).shape == (0, 130)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("heads", "size", "half"), [(2, 128, 64), (3, 80, 16), (1, 8, 4), (5, 72, 36), (2, 64, 10)])
def test_rotation(ops, dtype, interleaved, heads, size, half):
    positions = torch.tensor([0, 1, 5, 100, 8191, 131071])
    frequencies = 10000.0 ** (-torch.arange(half) / half)
    cos, sin = ops.rotation(positions, frequencies, 1.1, dtype)
    true_cos, true_sin = TRUTH.rotation(positions, frequencies, 1.1, dtype)
    close(cos, true_cos)
    close(sin, true_sin)
    x = normal(6, (heads + 2) * size, dtype=dtype)[:, size : size * (heads + 1)].view(6, heads, size)
    close(ops.rotate(x, cos, sin, interleaved=interleaved), TRUTH.rotate(x, cos, sin, interleaved=interleaved))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 16, 17, 100, 8192, 8193, 30000])
def test_best(ops, dtype, size):
    for rows in (1, 4):
        logits = normal(rows, size + 3, dtype=dtype, seed=size)[:, :size]
        value, place = ops.best(logits)
        assert torch.equal(value, logits.amax(-1).float())
        assert torch.equal(place, torch.stack([(row == row.max()).nonzero()[0, 0] for row in logits]))
    equal = torch.zeros(2, size, dtype=dtype)
    assert ops.best(equal)[1].tolist() == [0, 0]


@pytest.mark.parametrize("place", [0, 15, 16, 9000, 9999])
def test_best_finds_nan(ops, place):
    logits = normal(3, 10000)
    logits[1, place] = float("nan")
    value, _ = ops.best(logits)
    assert value.isnan().tolist() == [False, True, False]
    minus = torch.full((1, 10000), -float("inf"))
    assert ops.best(minus)[0].item() == -float("inf")


def masks_of(allowed):
    """Bits of bool [rows, columns]; those beyond the columns are set."""
    padded = np.ones((len(allowed), -(-allowed.shape[1] // 32) * 32), np.uint8)
    padded[:, : allowed.shape[1]] = allowed
    return np.packbits(padded, axis=1, bitorder="little").view(np.int32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 31, 32, 33, 100, 2048, 8224, 30001])
def test_restrict(ops, dtype, size):
    """Rows without a mask, masks of few, some, most and all columns; rows that lie apart keep what lies between them."""
    chance = np.random.default_rng(size)
    whole = normal(7, size + 3, dtype=dtype, seed=size)
    rows = np.array([4, 0, 6, 3, 2], np.int64)
    allowed = chance.random((5, size)) < np.array([[0.01], [0.3], [0.5], [0.98], [1.0]])
    allowed[0, size // 2] = True
    bits = masks_of(allowed)
    wanted = whole.clone()
    for row, columns in zip(rows.tolist(), allowed, strict=True):
        wanted[row, :size][torch.from_numpy(~columns)] = -torch.inf
    value, place = ops.restrict(whole[:, :size], rows, bits)
    assert torch.equal(whole, wanted)
    assert torch.equal(value, wanted[:, :size].amax(-1).float())
    assert (wanted[:, :size].gather(1, place[:, None])[:, 0].float() == value).all()


def test_restrict_by_a_part_of_wider_masks(ops):
    logits, allowed = normal(2, 70), np.zeros((2, 160), bool)
    allowed[:, 69] = True
    bits = masks_of(allowed)[:, 1:]
    with pytest.raises(ValueError, match="do not cover 130 columns"):
        ops.restrict(normal(2, 130), np.arange(2), bits[:, :3])
    ops.restrict(logits, np.arange(2), masks_of(allowed)[:, :3])
    assert torch.isfinite(logits).nonzero().tolist() == [[0, 69], [1, 69]]


def test_restrict_overwrites_nan_and_leaves_nothing_where_nothing_is_allowed(ops):
    logits = normal(3, 100)
    logits[:, 7] = float("nan")
    allowed = np.zeros((3, 100), bool)
    allowed[1, 9], allowed[2, 7] = True, True
    value, place = ops.restrict(logits, np.arange(3), masks_of(allowed))
    assert value[0].item() == -float("inf") and place[1].item() == 9 and value[2].isnan()


def test_a_row_does_not_depend_on_its_neighbours(ops):
    x, weight = normal(37, 1000, dtype=torch.bfloat16), normal(1000, dtype=torch.bfloat16, seed=1)
    for apply in (lambda rows: ops.rms_norm(rows, weight, 1e-6), lambda rows: ops.layer_norm(rows, weight, weight, 1e-6)):
        whole = apply(x)
        for row in range(37):
            assert torch.equal(apply(x[row : row + 1])[0], whole[row])
