"""Filters equal transformers' definitions, and draws follow the probabilities they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.worker.draw import draw, thresholds
from engine.worker.uniform import ACCEPT, TOKEN, uniforms


def allowed(scores: torch.Tensor, k: list[int], p: list[float], m: list[float]) -> torch.Tensor:
    """Which tokens the thresholds leave, for raw scores."""
    relative = scores - scores.max(-1, keepdim=True).values
    least = thresholds(relative, np.array(k), np.array(p, np.float32), np.array(m, np.float32))
    return relative >= least[:, None]


def by_transformers(row: torch.Tensor, k: int, p: float, m: float) -> torch.Tensor:
    from transformers.generation import logits_process as lp

    row = row[None]
    if 0 < k < row.shape[1]:
        row = lp.TopKLogitsWarper(k)(None, row)
    if p < 1:
        row = lp.TopPLogitsWarper(p)(None, row)
    if m > 0:
        row = lp.MinPLogitsWarper(m)(None, row)
    return torch.isfinite(row[0])


@pytest.mark.parametrize("vocab", [50, 1500])
def test_filters_equal_transformers(vocab: int) -> None:
    torch.manual_seed(1)
    rows = 60
    scores = torch.randn(rows, vocab) * torch.linspace(0.1, 6, rows)[:, None]
    generator = np.random.default_rng(3)
    k = generator.choice([-1, 0, 1, 2, 7, 40, vocab, vocab + 9], rows).tolist()
    p = generator.choice([1.0, 0.999, 0.9, 0.5, 0.1, 1e-6], rows).tolist()
    m = generator.choice([0.0, 0.01, 0.3, 1.0], rows).tolist()
    got = allowed(scores, k, p, m)
    for i in range(rows):
        assert torch.equal(got[i], by_transformers(scores[i], k[i], p[i], m[i])), (k[i], p[i], m[i])


def test_a_flat_row_needs_the_full_sort() -> None:
    """The nucleus of a uniform row is far longer than the part that is looked at first."""
    scores = torch.arange(4000, dtype=torch.float32)[None].flip(-1) * 1e-5
    assert int(allowed(scores, [-1], [0.9], [0.0]).sum()) == int(by_transformers(scores[0], -1, 0.9, 0.0).sum())


def test_tokens_equal_to_the_last_one_kept_stay() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    assert allowed(scores, [2], [1.0], [0.0]).tolist() == [[False, True, True, True, True, False]]
    assert allowed(scores, [-1], [0.5], [0.0]).tolist() == [[False, True, True, True, True, False]]
    assert allowed(scores, [1], [1.0], [0.0]).tolist() == [[False, True, False, False, False, False]]


def slow_draw(weights: np.ndarray, u: float) -> int:
    """The definition: the smallest index whose inclusive sum exceeds u times the total."""
    sums = np.cumsum(weights.astype(np.float64))
    return int(np.argmax(sums > u * sums[-1]))


@pytest.mark.parametrize("vocab", [1, 5, 128, 129, 1000])
def test_draw_is_the_inverse_of_the_cumulative_sum(vocab: int) -> None:
    generator = np.random.default_rng(vocab)
    weights = generator.exponential(size=(200, vocab)).astype(np.float32)
    weights[generator.random(weights.shape) < 0.4] = 0
    weights[:, generator.integers(vocab)] += 0.1
    u = generator.random(200)
    got = draw(torch.from_numpy(weights), torch.from_numpy(u)).tolist()
    expected = [slow_draw(row, x) for row, x in zip(weights, u, strict=True)]
    assert got == expected


def test_draw_never_takes_what_is_forbidden() -> None:
    weights = torch.zeros(6, 300)
    for row, index in enumerate([0, 1, 127, 128, 255, 299]):
        weights[row, index] = 1e-30
    for u in (0.0, 0.5, 1 - 2.0**-53):
        got = draw(weights, torch.full((6,), u, dtype=torch.float64))
        assert got.tolist() == [0, 1, 127, 128, 255, 299]


def test_draws_of_unusable_rows_stay_in_range() -> None:
    weights = torch.full((2, 10), torch.nan)
    assert draw(weights, torch.tensor([0.1, 0.9], dtype=torch.float64)).max() < 10


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_draws_follow_the_weights() -> None:
    """Chi-square with 9 degrees of freedom; 27.9 is its 99.9th percentile. Seeds are fixed."""
    weights = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], np.float32)
    for by_seed in (True, False):
        count = np.arange(20000)
        u = uniforms(count, np.full_like(count, 5)) if by_seed else uniforms(np.full_like(count, 5), count)
        tokens = draw(torch.from_numpy(weights).expand(20000, -1).contiguous(), torch.from_numpy(u)).numpy()
        assert chi_square(np.bincount(tokens, minlength=10), weights.astype(np.float64) / 55) < 27.9


def test_uniforms_are_uniform_and_unrelated() -> None:
    count = np.arange(50000)
    zero = np.zeros_like(count)
    rows = [
        uniforms(zero, count), uniforms(count, zero), uniforms(zero, count, ACCEPT), uniforms(zero + 1, count),
        uniforms(zero - 1, count), uniforms(count, count),
    ]  # fmt: skip
    for row in rows:
        assert row.min() >= 0
        assert row.max() < 1
        # 63 degrees of freedom: 103.4 is the 99.9th percentile.
        assert chi_square(np.bincount((row * 64).astype(int), minlength=64), np.full(64, 1 / 64)) < 103.4
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.02
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 0.02


def test_uniforms_are_fixed_for_all_time() -> None:
    """A change here would change what every recorded seed gives."""
    got = uniforms(np.array([0, 1, -1, 2**62]), np.array([0, 7, 1, 3]), TOKEN)
    assert [f"{x:.12f}" for x in got] == ["0.138709410146", "0.967429140557", "0.458142786186", "0.174761274647"]
