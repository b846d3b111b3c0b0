"""Log-probabilities of the model's own logits: before bias, penalties, temperature and filters."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from engine.plugin.step import TokenLogprobs, Work
from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of float32 logits that prompt_logprobs holds at once.
CHUNK_BYTES = 64 << 20


def describe_tokens(logits: Tensor, tokens: NDArray[np.int64], counts: Rows[int]) -> list[TokenLogprobs]:
    """Rows of raw logits [n, V], the token at each and how many alternatives to name → the entries.

    Equal log-probabilities are ordered by token id, so that an entry does not depend on its batch mates.
    """
    raw = torch.log_softmax(logits.float(), dim=-1)
    chosen = raw.gather(1, torch.from_numpy(tokens).to(raw.device)[:, None])
    ranks = (raw > chosen).sum(-1) + 1
    most = min(max(counts), raw.shape[1])
    best: list[tuple[list[int], list[float]]] = _best(raw, most) if most else [([], [])] * len(counts)
    own, rank_of = chosen[:, 0].tolist(), ranks.tolist()
    return [
        TokenLogprobs(token, own[i], rank_of[i], best[i][0][: counts[i]], best[i][1][: counts[i]])
        for i, token in enumerate(tokens.tolist())
    ]


def _best(raw: Tensor, k: int) -> list[tuple[list[int], list[float]]]:
    """The k best ids and values of each row, best first, equal ones by id."""
    values = torch.topk(raw, k, dim=-1).values
    rows, ids = torch.nonzero(raw >= values[:, -1:], as_tuple=True)
    found = raw[rows, ids]
    rows_np, ids_np, found_np = rows.cpu().numpy(), ids.cpu().numpy(), found.cpu().numpy()
    order = np.lexsort((ids_np, -found_np, rows_np))
    bounds = np.searchsorted(rows_np, np.arange(raw.shape[0]))
    ids_np, found_np = ids_np[order], found_np[order]
    return [(ids_np[b : b + k].tolist(), found_np[b : b + k].tolist()) for b in bounds]


def describe_prompt(
    sequence: Sequence, work: Work, hidden: Tensor, logits: Callable[[Tensor], Tensor], width: int
) -> list[TokenLogprobs]:
    """Entries of the prompt positions [max(start, 1), start + count) from this step's hidden rows [count, hidden].

    The row of position q gives token q + 1, so the entry of a chunk's first token was computed with the chunk before
    and kept. ``logits`` maps hidden rows to logits of ``width``; it is called on few rows at a time.
    """
    alternatives = sequence.params.prompt_logprobs or 0
    start, end = work.start, work.start + work.count
    entries: list[TokenLogprobs] = []
    if 0 < start < sequence.num_prompt:
        if sequence.pending is None or sequence.pending[0] != start:
            raise ValueError(f"prompt_logprobs: position {start} was computed without its predecessor's logits")
        entries.append(sequence.pending[1])
    targets = sequence.tokens[start + 1 : min(end + 1, sequence.num_prompt)].astype(np.int64)
    step = max(1, CHUNK_BYTES // (4 * width))
    for first in range(0, len(targets), step):
        part = targets[first : first + step]
        rows = logits(hidden[first : first + len(part)])
        entries += describe_tokens(rows, part, [alternatives] * len(part))
    if end < sequence.num_prompt:
        sequence.pending = (end, entries.pop())
    return entries
