"""Drawing tokens natively against the sampler's own definition in torch, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.worker.draw import draw, thresholds
from engine_devices._operations import NativeOperations

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def ops(native):
    return NativeOperations(native)


def in_torch(logits, best, temperature, top_k, top_p, min_p, chance):
    relative = (logits.float() - best[:, None]).div_(torch.from_numpy(temperature)[:, None])
    least = thresholds(relative, top_k, top_p, min_p)
    return draw(relative.masked_fill_(relative < least[:, None], -torch.inf).exp_(), torch.from_numpy(chance))


def parameters(rows, seed):
    source = np.random.default_rng(seed)
    return (
        source.choice([0.2, 0.7, 1.0, 2.0], rows).astype(np.float32),
        source.choice([-1, 0, 1, 5, 50, 400, 10**9], rows).astype(np.int64),
        source.choice([1.0, 1.0, 0.95, 0.5, 0.999, 1e-6], rows).astype(np.float32),
        source.choice([0.0, 0.0, 0.05, 0.5, 1.0], rows).astype(np.float32),
        source.random(rows),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 5, 16, 33, 100, 1000, 4099, 50257])
def test_draws_equal_the_definition(ops, width, dtype):
    """Flat and peaked rows, ties, forbidden tokens, every combination of filters."""
    for seed, scale in enumerate((0.3, 1.0, 5.0, 20.0)):
        logits = (torch.randn(33, width, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
        if width > 4:
            logits[::3, : width // 2] = -torch.inf
            logits[1::5] = logits[1::5].round()
        best = logits.amax(-1).float()
        values = parameters(33, seed)
        got, wanted = ops.sample(logits, best, *values), in_torch(logits, best, *values)
        for row in torch.nonzero(got != wanted)[:, 0].tolist():
            assert on_a_border(logits[row], values, row, got[row], wanted[row])


def on_a_border(logits, values, row, got, wanted):
    """Whether the point drawn lies between the tokens, within what sums of float32 numbers can tell."""
    temperature, top_k, top_p, min_p, chance = (value[row : row + 1] for value in values)
    relative = ((logits.float() - logits.float().max()) / temperature[0])[None]
    least = thresholds(relative, top_k, top_p, min_p)
    inclusive = relative.masked_fill(relative < least[:, None], -torch.inf)[0].double().exp().cumsum(0)
    first = min(int(got), int(wanted))
    return abs(float(inclusive[first] / inclusive[-1]) - chance[0]) < 1e-5


@pytest.mark.parametrize("filters", [(0, 1.0, 0.0), (7, 1.0, 0.0), (0, 0.9, 0.0), (7, 0.9, 0.1)])
def test_unusable_rows_give_a_valid_id_and_touch_no_others(ops, filters):
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(1))
    clean = logits.clone()
    logits[0] = torch.nan
    logits[1, 7] = torch.nan
    logits[2, 9] = torch.inf
    logits[3] = -torch.inf
    top_k, top_p, min_p = filters
    values = (
        np.ones(6, np.float32), np.full(6, top_k), np.full(6, top_p, np.float32), np.full(6, min_p, np.float32), np.full(6, 0.6),
    )  # fmt: skip
    got = ops.sample(logits, logits.amax(-1), *values)
    assert ((got >= 0) & (got < 300)).all()
    assert torch.equal(got[4:], in_torch(clean, clean.amax(-1), *values)[4:])


def test_equal_tokens_all_stay_and_chance_chooses(ops):
    logits = torch.zeros(5, 1000)
    values = (
        np.ones(5, np.float32), np.full(5, 3), np.full(5, 0.5, np.float32), np.zeros(5, np.float32), np.arange(5) / 5 + 0.0005,
    )  # fmt: skip
    assert ops.sample(logits, logits.amax(-1), *values).tolist() == [0, 200, 400, 600, 800]


def test_rows_that_lie_apart(ops):
    whole = torch.randn(4, 700, generator=torch.Generator().manual_seed(2))
    part = whole[::2, :600]
    values = parameters(2, 3)
    assert torch.equal(ops.sample(part, part.amax(-1), *values), in_torch(part, part.amax(-1), *values))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [5, 100, 4099])
def test_drawing_from_masked_rows_is_drawing_from_what_the_masks_leave(ops, width, dtype):
    source = np.random.default_rng(width)
    logits = torch.randn(9, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    allowed = source.random((4, width)) < 0.4
    allowed[:, 0] = True
    rows, values = np.array([8, 1, 2, 5], np.int64), parameters(9, 7)
    padded = np.zeros((4, -(-width // 32) * 32), np.uint8)
    padded[:, :width] = allowed
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.int32)
    masked = logits.clone()
    for row, columns in zip(rows.tolist(), allowed, strict=True):
        masked[row, torch.from_numpy(~columns)] = -torch.inf
    best = torch.empty(9)
    tokens = ops.sample(logits, best, *values, (rows, bits))
    assert torch.equal(logits, masked) and torch.equal(best, masked.amax(-1).float())
    assert torch.equal(tokens, ops.sample(masked, best, *values))
    assert torch.equal(ops.sample(logits, torch.empty(9), *values, (rows[:0], bits[:0])), tokens), "no row is masked"
