"""From a step's work to arrays: which token stands where, in which slot, and which rows give logits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from engine.plugin.step import Work
from engine.worker.sequences import Sequence, SequenceTable


@dataclass(frozen=True, slots=True, eq=False)
class StepInputs:
    """One step's rows, packed by sequence: T rows of B sequences, as numpy arrays.

    The arrays are those of :class:`~engine.plugin.contracts.model.Batch` and its attention batch.

    ``sample_rows`` [R]: rows whose logits are sampled; ``sample_owner`` [R]: index of the work item; ``sample_length``
    [R]: tokens of context at that row, which is also the position of the token to sample. A work item's rows are
    adjacent, in order. ``every``: hidden states are wanted of all rows, not of those to sample alone.
    """

    sequences: list[Sequence]
    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    query_start: NDArray[np.int32]
    query_lens: NDArray[np.int64]
    seq_lens: NDArray[np.int32]
    block_table: NDArray[np.int32]
    sample_rows: NDArray[np.int64]
    sample_owner: NDArray[np.int64]
    sample_length: NDArray[np.int64]
    every: bool = False

    @property
    def decode(self) -> bool:
        """Whether every sequence has exactly one row."""
        return len(self.token_ids) == len(self.sequences)


def assemble(table: SequenceTable, work: list[Work]) -> StepInputs:
    """Apply each work item to its sequence, then lay out the step."""
    n = len(work)
    sequences = [table.advance(item) for item in work]
    starts = np.array([item.start for item in work], np.int64)
    rows = np.array([sequence.row for sequence in sequences], np.int64)
    counts = np.array([item.count for item in work], np.int64)
    query_start = np.zeros(n + 1, np.int64)
    counts.cumsum(out=query_start[1:])
    total = int(query_start[-1])
    ends = starts + counts
    if total == n and bool((counts == 1).all()):
        positions, owners, row_of = starts, np.arange(n), rows
        token_ids = np.array([s.token_at(item.start) for s, item in zip(sequences, work, strict=True)], np.int64)
    else:
        owners = np.repeat(np.arange(n), counts)
        positions = np.arange(total) - (query_start[:-1] - starts)[owners]
        row_of = rows[owners]
        parts = [s.tokens[item.start : item.start + item.count] for s, item in zip(sequences, work, strict=True)]
        token_ids = np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
    pages, offsets = np.divmod(positions, table.block_size)
    width = int((ends.max() - 1) // table.block_size) + 1 if n else 1
    sample_rows = _sample_rows(work, query_start)
    return StepInputs(
        sequences=sequences,
        token_ids=token_ids,
        positions=positions,
        slots=table.blocks[row_of, pages].astype(np.int64) * table.block_size + offsets,
        query_start=query_start.astype(np.int32),
        query_lens=counts,
        seq_lens=ends.astype(np.int32),
        block_table=table.blocks[rows, :width],
        sample_rows=sample_rows,
        sample_owner=owners[sample_rows],
        sample_length=positions[sample_rows] + 1,
        every=any(describes_prompt(sequence, item) for sequence, item in zip(sequences, work, strict=True)),
    )


def advance(table: SequenceTable, inputs: StepInputs, tokens: list[int] | None = None) -> StepInputs:
    """The decode step after one that sampled ``tokens``, one for each sequence (None: they are to be filled in). The pages for it must be
    known."""
    positions = inputs.positions + 1
    slots = inputs.slots + 1
    block_table = inputs.block_table
    fresh = np.flatnonzero(positions % table.block_size == 0)
    if fresh.size:
        rows, pages = np.array([sequence.row for sequence in inputs.sequences]), positions // table.block_size
        slots[fresh] = table.blocks[rows[fresh], pages[fresh]].astype(np.int64) * table.block_size
        block_table = table.blocks[rows, : int(pages.max()) + 1]
    return StepInputs(
        sequences=inputs.sequences,
        token_ids=np.zeros(len(positions), np.int64) if tokens is None else np.array(tokens, np.int64),
        positions=positions,
        slots=slots,
        query_start=inputs.query_start,
        query_lens=inputs.query_lens,
        seq_lens=inputs.seq_lens + np.int32(1),
        block_table=block_table,
        sample_rows=inputs.sample_rows,
        sample_owner=inputs.sample_owner,
        sample_length=inputs.sample_length + 1,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Successor:
    """The inputs of a step whose ``token_ids`` come when the one before is done, and the tokens that may end its sequences, as
    :class:`~engine.plugin.contracts.device.Succession` has them."""

    inputs: StepInputs
    ends: NDArray[np.int64]
    end_of: NDArray[np.int32]


def describes_prompt(sequence: Sequence, item: Work) -> bool:
    """Whether that work gives log probabilities of the sequence's prompt."""
    return sequence.params.prompt_logprobs is not None and item.start < sequence.num_prompt


def _sample_rows(work: list[Work], query_start: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last row of each sampling item, with drafts every row from the last real token on."""
    if not any(item.draft for item in work):
        return (query_start[1:] - 1)[[item.sample for item in work]] if work else np.zeros(0, np.int64)
    ends = query_start[1:].tolist()
    spans = (range(end - 1 - len(i.draft), end) for end, i in zip(ends, work, strict=True) if i.sample)
    return np.fromiter(chain.from_iterable(spans), np.int64)
