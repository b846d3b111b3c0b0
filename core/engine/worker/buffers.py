"""Input buffers that recorded steps read, at addresses that never change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.contracts.model import Batch, Wanted
from engine.worker.inputs import StepInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Buffers:
    """Buffers on the device for up to ``rows`` sequences of one row each; rows beyond the batch are padding: token 0 of a
    one-token context, not stored. The same sequences may have up to ``tokens`` rows in all (ragged steps)."""

    def __init__(self, rows: int, max_seq_len: int, block_size: int, device: torch.device, tokens: int = 0) -> None:
        self.max_seq_len = max_seq_len
        self.rows, self.tokens = rows, max(rows, tokens)
        self._block_size = block_size
        self._token_ids = torch.zeros(self.tokens, dtype=torch.int64, device=device)
        self._positions = torch.zeros(self.tokens, dtype=torch.int64, device=device)
        self._slots = torch.full((self.tokens,), -1, dtype=torch.int64, device=device)
        self._starts = torch.zeros(rows + 1, dtype=torch.int32, device=device)
        self._seq_lens = torch.ones(rows, dtype=torch.int32, device=device)
        self._query_start = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._block_table = torch.zeros((rows, -(-max_seq_len // block_size)), dtype=torch.int32, device=device)
        self._wanted = torch.zeros(rows, dtype=torch.int64, device=device)
        self._wanted_lens = torch.ones(rows, dtype=torch.int32, device=device)
        self._wanted_table = torch.zeros_like(self._block_table)
        # On the host numpy writes them: a tenth of the time of a tensor's copy_.
        self._views = [tensor.numpy() for tensor in self._filled] if device.type == "cpu" else None
        self._decoded = tuple((self._views or [])[:4])

    @property
    def _filled(self) -> tuple[Tensor, ...]:
        return self._token_ids, self._positions, self._slots, self._seq_lens, self._block_table

    def batch(self, size: int, caches: list[Tensor]) -> Batch:
        """Views of the first ``size`` rows."""
        return Batch(self._token_ids[:size], self._positions[:size], self._one_row_each(size, self._seq_lens, self._block_table), caches)

    def _one_row_each(self, count: int, lengths: Tensor, table: Tensor) -> AttentionBatch:
        """The first ``count`` sequences of one row each, their lengths and pages."""
        return AttentionBatch(
            query_start=self._query_start[: count + 1],
            seq_lens=lengths[:count],
            block_table=table[:count],
            slots=self._slots[:count],
            block_size=self._block_size,
            max_query_len=1,
            max_seq_len=self.max_seq_len,
        )

    def ragged(self, rows: int, sequences: int, caches: list[Tensor], wanted: int | None = None) -> Batch:
        """Views of the first rows and sequences, and of the first wanted rows unless all are."""
        attention = AttentionBatch(
            query_start=self._starts[: sequences + 1],
            seq_lens=self._seq_lens[:sequences],
            block_table=self._block_table[:sequences],
            slots=self._slots[:rows],
            block_size=self._block_size,
            max_query_len=self.tokens,
            max_seq_len=self.max_seq_len,
        )
        some = None
        if wanted is not None:
            some = Wanted(self._wanted[:wanted], self._one_row_each(wanted, self._wanted_lens, self._wanted_table))
        return Batch(self._token_ids[:rows], self._positions[:rows], attention, caches, wanted=some)

    def fill_ragged(self, inputs: StepInputs) -> None:
        """Put a step's inputs into the first rows and sequences, and its rows to sample into the wanted ones, if there is room for them.

        Only where the device is the host.
        """
        rows, count, width = len(inputs.token_ids), len(inputs.sequences), inputs.block_table.shape[1]
        token_ids, positions, slots, seq_lens, block_table = self._views or []
        token_ids[:rows], positions[:rows], slots[:rows] = inputs.token_ids, inputs.positions, inputs.slots
        seq_lens[:count] = inputs.seq_lens
        self._starts.numpy()[: count + 1] = inputs.query_start
        block_table[:count, :width] = inputs.block_table
        wanted = len(inputs.sample_rows)
        if wanted <= self.rows:
            self._wanted.numpy()[:wanted] = inputs.sample_rows
            self._wanted_lens.numpy()[:wanted] = inputs.sample_length
            self._wanted_table.numpy()[:wanted, :width] = inputs.block_table[inputs.sample_owner]

    @property
    def decoded(self) -> tuple[NDArray[Any], ...]:
        """Token ids, positions, slots and lengths of decode steps, where the device is the host."""
        return self._decoded

    def extend_tables(self, inputs: StepInputs) -> None:
        """Put in further pages of sequences that may be computed just now: those that are there stay."""
        views = self._views or []
        views[-1][: len(inputs.sequences), : inputs.block_table.shape[1]] = inputs.block_table

    def fill_harmlessly(self, rows: int, sequences: int, wanted: int = 0) -> None:
        """Put in token 0 at every row of sequences that begin with it, none of which is stored; rows are wanted from the first on, over
        and over."""
        token_ids, positions, slots, seq_lens, block_table = self._views or []
        starts = np.linspace(0, rows, sequences + 1).astype(np.int32)
        counts = np.diff(starts)
        token_ids[:rows], slots[:rows], block_table[:sequences] = 0, -1, 0
        positions[:rows] = np.arange(rows) - np.repeat(starts[:-1], counts)
        seq_lens[:sequences] = counts
        self._starts.numpy()[: sequences + 1] = starts
        chosen = np.arange(wanted) % max(rows, 1)
        self._wanted.numpy()[:wanted] = chosen
        self._wanted_lens.numpy()[:wanted] = positions[chosen] + 1
        self._wanted_table.numpy()[:wanted] = 0

    def fill(self, inputs: StepInputs, size: int) -> None:
        """Put a decode step's inputs into the first rows and padding into the rest of ``size``."""
        arrays = (inputs.token_ids, inputs.positions, inputs.slots, inputs.seq_lens)
        count, width = len(inputs.sequences), inputs.block_table.shape[1]
        buffers: Any = self._views
        if buffers is None:
            buffers = self._filled
            for buffer, array in zip(buffers, arrays, strict=False):
                buffer[:count].copy_(torch.from_numpy(array), non_blocking=True)
            self._block_table[:count, :width].copy_(torch.from_numpy(inputs.block_table), non_blocking=True)
        else:
            for buffer, array in zip(buffers, arrays, strict=False):
                buffer[:count] = array
            buffers[-1][:count, :width] = inputs.block_table
        if count < size:
            for buffer, padding in zip(buffers, (0, 0, -1, 1), strict=False):
                buffer[count:size] = padding
