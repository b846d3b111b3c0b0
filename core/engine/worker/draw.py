"""Which tokens may be drawn (top-k, top-p, min-p), and drawing one by inverse transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

#: How many of the best tokens are looked at before a whole row is sorted for top-p.
NUCLEUS_FIRST = 512
#: Tokens per block of the two-level search.
BLOCK = 128


def thresholds(
    scores: Tensor, top_k: NDArray[np.int64], top_p: NDArray[np.float32], min_p: NDArray[np.float32]
) -> Tensor:
    """The least score that each row still allows, [R].

    scores [R, V] float32: logits / temperature minus their row's maximum. ``top_k`` (≤ 0: all), ``top_p`` and ``min_p``
    are per row. Applied in this order: top-k keeps scores ≥ the k-th largest; top-p (Holtzman et al. 2019) keeps the
    fewest best tokens whose probability, among those that top-k left, reaches p; min-p (Nguyen et al. 2024) keeps
    probabilities ≥ min_p times the largest. Each rule keeps tokens that tie with the last one kept, so the set does not
    depend on any order of equal tokens.
    """
    width, device = scores.shape[1], scores.device
    with np.errstate(divide="ignore"):
        least = torch.from_numpy(np.log(min_p)).to(device)
    limited = np.flatnonzero((top_k > 0) & (top_k < width))
    kth = torch.full_like(least, -torch.inf)
    if limited.size:
        rows = torch.from_numpy(limited).to(device)
        k = torch.from_numpy(top_k[limited]).to(device)
        best = _descending(scores[rows], int(top_k[limited].max()))
        kth[rows] = best.gather(1, (k - 1)[:, None])[:, 0]
        least = torch.maximum(least, kth)
    nucleus = np.flatnonzero(top_p < 1.0)
    if nucleus.size:
        rows = torch.from_numpy(nucleus).to(device)
        found = _nucleus(scores[rows], kth[rows], torch.from_numpy(top_p[nucleus]).to(device))
        least[rows] = torch.maximum(least[rows], found)
    return least


def _nucleus(scores: Tensor, floor: Tensor, top_p: Tensor) -> Tensor:
    """The smallest score in the top-p set of each row, of the scores that are ≥ ``floor`` [R]."""
    allowed = scores.masked_fill(scores < floor[:, None], -torch.inf)
    total = torch.logsumexp(allowed, dim=-1)
    first = min(NUCLEUS_FIRST, scores.shape[1])
    least, enough = _cut(_descending(allowed, first), total, top_p)
    if first < scores.shape[1] and not bool(enough.all()):
        rest = torch.nonzero(~enough)[:, 0]
        ordered = _descending(allowed[rest], scores.shape[1])
        least[rest] = _cut(ordered, total[rest], top_p[rest])[0]
    return least


def _descending(scores: Tensor, count: int) -> Tensor:
    """The ``count`` largest scores of each row, largest first."""
    if scores.device.type != "cpu":
        return torch.topk(scores, count, dim=-1).values
    # numpy's vectorised sort of bare floats: 30 times torch's speed at 32000 per row, where torch carries indices along.
    array, width = scores.numpy(), scores.shape[1]
    if count * 8 < width:
        array = np.partition(array, width - count, axis=-1)[:, width - count :]
    return torch.from_numpy(np.sort(array, axis=-1)[:, : -count - 1 : -1].copy())


def _cut(ordered: Tensor, total: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Scores from the best down → (smallest kept score, whether the nucleus ends within them)."""
    mass = (ordered - total[:, None]).exp().double().cumsum(-1)
    before = mass - (ordered - total[:, None]).exp().double()
    kept = (before < top_p.double()[:, None]).sum(-1).clamp(min=1)
    least = ordered.gather(1, (kept - 1)[:, None])[:, 0]
    return least, mass[:, -1] >= top_p.double()


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One index per row of non-negative float32 ``weights`` [R, V], with probability proportional to its weight.

    The inverse of the cumulative sum in index order at ``uniforms`` [R] (float64 in [0, 1)): the smallest index whose
    inclusive sum exceeds u · total. Sums run over blocks first, in float64, so that long rows neither lose small
    weights nor cost a full scan. An index of weight 0 is never drawn. Rows whose weights are not finite give an
    arbitrary valid index.
    """
    rows, width = weights.shape
    blocks = torch.nn.functional.pad(weights, (0, -width % BLOCK)).view(rows, -1, BLOCK)
    block_sums = blocks.sum(-1).double().cumsum(-1)
    target = _below(uniforms * block_sums[:, -1], block_sums[:, -1])
    block = torch.searchsorted(block_sums, target[:, None], right=True).clamp_(max=blocks.shape[1] - 1)
    before = torch.where(block > 0, block_sums.gather(1, (block - 1).clamp(min=0)), 0.0)[:, 0]
    inner = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    rest = _below((target - before).clamp(min=0.0), inner[:, -1])
    place = torch.searchsorted(inner, rest[:, None], right=True).clamp_(max=BLOCK - 1)
    return (block * BLOCK + place)[:, 0].clamp_(max=width - 1)


def _below(x: Tensor, bound: Tensor) -> Tensor:
    """x, but less than ``bound``: rounding must not carry a target past the last positive weight."""
    return torch.minimum(x, torch.nextafter(bound, torch.zeros_like(bound)))
