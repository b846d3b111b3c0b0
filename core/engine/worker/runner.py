"""Runs the model on one step's inputs: plainly, or by replaying a recorded step of the next larger size."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.contracts.model import Batch, Model
from engine.worker.inputs import StepInputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin.contracts.device import Recorder, Replay

#: Most sequences in a recorded step.
LARGEST_RECORDED = 512


def recorded_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes to record: 1, 2, 4, then multiples of 8 up to 64, of 16 up to 256, of 32 beyond; the last covers
    ``max_num_seqs``."""
    ladder = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, LARGEST_RECORDED + 1, 32)]
    most = min(max_num_seqs, LARGEST_RECORDED)
    return [*(size for size in ladder if size < most), most]


class StepRunner:
    """The forward pass over the paged caches.

    A recorded step and a plain one call the model with the same kind of batch; they differ in whose buffers it stands on.
    """

    def __init__(self, model: Model, caches: list[Tensor], block_size: int, device: torch.device) -> None:
        self._model = model
        self._caches = caches
        self._block_size = block_size
        self._device = device
        self._buffers: Buffers | None = None
        self._replays: dict[int, Replay] = {}
        self._sizes: list[int] = []

    def record(self, recorder: Recorder, sizes: list[int], max_seq_len: int) -> None:
        """Record decode steps of these sizes for contexts of up to ``max_seq_len`` tokens; longer ones run plainly.

        The largest first, so that the smaller ones fit into its memory.
        """
        buffers = Buffers(max(sizes), max_seq_len, self._block_size, self._device)
        for size in sorted(sizes, reverse=True):
            batch = buffers.batch(size, self._caches)
            self._replays[size] = recorder.record(lambda batch=batch: self._model.forward(batch))  # type: ignore[misc]
        self._buffers, self._sizes = buffers, sorted(sizes)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Hidden states, one row per row of the inputs."""
        count = len(inputs.sequences)
        buffers = self._buffers
        if buffers is not None and inputs.decode and count <= self._sizes[-1]:
            longest = int(inputs.seq_lens.max())
            if longest <= buffers.max_seq_len:
                size = self._sizes[bisect_left(self._sizes, count)]
                buffers.fill(inputs, size)
                return self._replays[size].run()[:count]
        return self._model.forward(self.batch(inputs))

    def batch(self, inputs: StepInputs) -> Batch:
        """The plain step's batch."""

        def put(array: NDArray[np.generic]) -> Tensor:
            tensor = torch.from_numpy(array)
            return tensor if self._device.type == "cpu" else tensor.to(self._device, non_blocking=True)

        query_lens, seq_lens = inputs.query_lens.tolist(), inputs.seq_lens.tolist()
        attention = AttentionBatch(
            query_start=put(inputs.query_start),
            seq_lens=put(inputs.seq_lens),
            block_table=put(inputs.block_table),
            slots=put(inputs.slots),
            block_size=self._block_size,
            max_query_len=max(query_lens, default=0),
            max_seq_len=max(seq_lens, default=0),
            host=(tuple(query_lens), tuple(seq_lens)),
        )
        return Batch(put(inputs.token_ids), put(inputs.positions), attention, self._caches)


class Buffers:
    """Input buffers on the device that recorded steps read. Rows beyond the batch are padding: token 0 of a one-token
    context, not stored."""

    def __init__(self, rows: int, max_seq_len: int, block_size: int, device: torch.device) -> None:
        self.max_seq_len = max_seq_len
        self._block_size = block_size
        self._token_ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self._positions = torch.zeros(rows, dtype=torch.int64, device=device)
        self._slots = torch.full((rows,), -1, dtype=torch.int64, device=device)
        self._seq_lens = torch.ones(rows, dtype=torch.int32, device=device)
        self._query_start = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._block_table = torch.zeros((rows, -(-max_seq_len // block_size)), dtype=torch.int32, device=device)

    def batch(self, size: int, caches: list[Tensor]) -> Batch:
        """Views of the first ``size`` rows."""
        attention = AttentionBatch(
            query_start=self._query_start[: size + 1],
            seq_lens=self._seq_lens[:size],
            block_table=self._block_table[:size],
            slots=self._slots[:size],
            block_size=self._block_size,
            max_query_len=1,
            max_seq_len=self.max_seq_len,
        )
        return Batch(self._token_ids[:size], self._positions[:size], attention, caches)

    def fill(self, inputs: StepInputs, size: int) -> None:
        """Put a decode step's inputs into the first rows and padding into the rest of ``size``."""
        count = len(inputs.sequences)
        for buffer, array in (
            (self._token_ids, inputs.token_ids), (self._positions, inputs.positions),
            (self._slots, inputs.slots), (self._seq_lens, inputs.seq_lens),
        ):  # fmt: skip
            buffer[:count].copy_(torch.from_numpy(array), non_blocking=True)
        width = inputs.block_table.shape[1]
        self._block_table[:count, :width].copy_(torch.from_numpy(inputs.block_table), non_blocking=True)
        if count < size:
            self._token_ids[count:size].zero_()
            self._positions[count:size].zero_()
            self._slots[count:size].fill_(-1)
            self._seq_lens[count:size].fill_(1)
