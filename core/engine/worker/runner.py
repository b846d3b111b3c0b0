"""Runs the model on one step's inputs: plainly, or by replaying a recorded step."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.contracts.device import CannotRecord, Succession
from engine.plugin.contracts.model import Batch, Model, Wanted, torch_operations
from engine.worker.buffers import Buffers
from engine.worker.computed import Computed, pick
from engine.worker.decodes import PAIRS, Decodes
from engine.worker.inputs import StepInputs, Successor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin.contracts.device import RaggedReplay, Recorder, Replay, UnderWay
    from engine.plugin.contracts.operations import Operations

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

    def __init__(
        self, model: Model, caches: list[Tensor], block_size: int, device: torch.device, ops: Operations | None = None
    ) -> None:
        self._model = model
        self._caches = caches
        self._block_size = block_size
        self._device = device
        self._ops = ops or torch_operations()
        self._buffers: Buffers | None = None
        self._recorder: Recorder | None = None
        self._replays: dict[int, Replay] = {}
        self._decodes: Decodes | None = None
        #: Batch sizes to record before anybody asks for them; 0 stands for steps with prompts.
        self._unprepared: list[int] = []
        self._sizes: list[int] = []
        #: Steps with prompts, by whether they compute the wanted rows alone in the last layer.
        self._ragged: dict[bool, RaggedReplay] = {}
        #: A step that has begun, and the inputs that it has.
        self._begun: tuple[StepInputs, UnderWay] | None = None
        #: Why steps with prompts are not recorded; empty where they are, or may be when one comes.
        self.ragged_plain = ""
        #: Why steps are not recorded; empty where they are.
        self.plain = "nothing was asked to be recorded"

    def record(self, recorder: Recorder, max_num_seqs: int, max_seq_len: int, max_tokens: int = 0) -> None:
        """Record decode steps for contexts of up to ``max_seq_len`` tokens; longer ones run plainly.

        A ladder of sizes now, or each size when it first occurs where that is cheap (:class:`Recorder`); there also steps of any
        other form with up to ``max_tokens`` rows, when the first one comes.
        """
        largest = min(max_num_seqs, LARGEST_RECORDED)
        rows, *trial = recorder.ragged_trial if max_tokens else (0, 0)
        sequences = max(trial)
        if recorder.cheap:
            sequences = max(sequences, *(size for pair in PAIRS for size in pair))
        self._buffers = buffers = Buffers(max(largest, sequences), max_seq_len, self._block_size, self._device, max(max_tokens, rows))
        self._recorder, self.plain = recorder, ""
        if recorder.cheap:
            self._sizes = list(range(1, largest + 1))
            self._unprepared = [size for size in (1, *(first for first, _ in PAIRS)) if size <= largest] + [0] * bool(max_tokens)
            self._decodes = Decodes(recorder, buffers, lambda size: self._decode(buffers.batch(size, self._caches)))
            return
        self._sizes = recorded_sizes(max_num_seqs)
        # The largest first, so that the smaller ones fit into its memory.
        for size in reversed(self._sizes):
            self._record(recorder, self._buffers, size)

    def prepare(self) -> bool:
        """Record one of the things that steps will need; whether more are left. Only where recording is cheap: elsewhere all is done."""
        buffers, recorder, decodes = self._buffers, self._recorder, self._decodes
        if buffers is None or recorder is None or decodes is None or not self._unprepared:
            return False
        size = self._unprepared.pop(0)
        try:
            if size:
                decodes.prepare(size)
                buffers.fill_harmlessly(size, size)
                decodes.run(size)
            else:
                self._record_ragged(recorder, buffers, self._model.selects)
        except CannotRecord as refused:
            self._give_up(refused)
        return bool(self._unprepared)

    def describe(self) -> str:
        """Whether steps are recorded, and why not."""
        if self.plain:
            return f"plain: {self.plain}"
        if self.ragged_plain:
            return f"decodes recorded, others plain: {self.ragged_plain}"
        recorded = ", ".join(map(str, sorted(self._replays))) if self._decodes is None else self._decodes.describe()
        return f"recorded, batches of {recorded or 'any size when it occurs'}"

    def run(self, inputs: StepInputs, successor: Successor | None = None) -> Computed:
        """Compute a step and the logits of its rows to sample. Where it was begun, its ``successor`` may begin as soon as it is done."""
        count = len(inputs.sequences)
        begun, self._begun = self._begun, None
        if begun is not None:
            if begun[0] is inputs:
                return self._finish(begun[1], inputs, successor)
            begun[1].drop()
        buffers = self._buffers
        if buffers is not None and inputs.decode and count <= self._sizes[-1]:
            longest = int(inputs.seq_lens.max())
            if longest <= buffers.max_seq_len:
                outputs = self._replay(buffers, inputs, self._sizes[bisect_left(self._sizes, count)])
                if outputs is not None:
                    return pick(outputs, inputs, count)
        if buffers is not None and self._recorder is not None and self._recorder.cheap and not inputs.decode:
            computed = self._replay_ragged(self._recorder, buffers, inputs)
            if computed is not None:
                return computed
        return self.run_plainly(inputs)

    def begin(self, inputs: StepInputs) -> bool:
        """Let a decode step begin beside the caller: :meth:`run` with the same inputs completes it, with others ends it.

        False where it is not recorded, or the device does not begin steps.
        """
        buffers, decodes, size = self._buffers, self._decodes, len(inputs.sequences)
        if buffers is None or decodes is None or size > self._sizes[-1] or int(inputs.seq_lens.max()) > buffers.max_seq_len:
            return False
        buffers.fill(inputs, size)
        step = decodes.begin(size)
        self._begun = None if step is None else (inputs, step)
        return step is not None

    @property
    def begun(self) -> StepInputs | None:
        """The inputs of the step that has begun."""
        return None if self._begun is None else self._begun[0]

    def _finish(self, step: UnderWay, inputs: StepInputs, successor: Successor | None) -> Computed:
        """What was begun, and on to its successor."""
        count, buffers = len(inputs.sequences), self._buffers
        if successor is None or buffers is None or int(successor.inputs.seq_lens.max()) > buffers.max_seq_len:
            return pick(step.finish(), inputs, count)
        following = successor.inputs
        if following.block_table is not inputs.block_table:
            buffers.extend_tables(following)
        each = (buffers.decoded, following.slots, following.token_ids, successor.ends, successor.end_of)
        outputs = step.finish_and_go_on(Succession(*each))
        if outputs is not None:
            return pick(outputs, inputs, count)
        self._begun = following, step
        return Computed(tokens=following.token_ids)

    def drop(self) -> None:
        """End what was begun."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].drop()

    def run_plainly(self, inputs: StepInputs) -> Computed:
        """The same without recordings."""
        batch = self._batch(inputs)
        hidden = self._forward(batch)
        return self._computed(hidden, inputs) if batch.wanted is None else self._of_wanted(hidden)

    def _computed(self, hidden: Tensor, inputs: StepInputs) -> Computed:
        """With the logits of the rows to sample."""
        if not len(inputs.sample_rows):
            return Computed(hidden)
        every = len(inputs.sample_rows) == hidden.shape[0]
        rows = hidden if every else hidden[torch.from_numpy(inputs.sample_rows).to(hidden.device)]
        return replace(self._of_wanted(rows), hidden=hidden)

    def _of_wanted(self, hidden: Tensor) -> Computed:
        """Of the hidden states of the rows to sample."""
        if not len(hidden):
            return Computed()
        logits = self._model.logits(hidden)
        return Computed(None, logits, self._ops.best(logits))

    def _forward(self, batch: Batch) -> Tensor:
        """The model's, checked: that it returns the wanted rows alone is its own word."""
        hidden = self._model.forward(batch)
        if batch.wanted is not None and len(hidden) != len(batch.wanted.rows):
            name = type(self._model).__name__
            raise RuntimeError(f"{name} says that it `selects`, but returned {len(hidden)} rows where {len(batch.wanted.rows)} were wanted")
        return hidden

    def _replay_ragged(self, recorder: Recorder, buffers: Buffers, inputs: StepInputs) -> Computed | None:
        """None: such steps cannot be recorded, or not this one."""
        rows, sequences, wanted = len(inputs.token_ids), len(inputs.sequences), len(inputs.sample_rows)
        if self.ragged_plain or sequences > buffers.rows or rows > buffers.tokens or int(inputs.seq_lens.max()) > buffers.max_seq_len:
            return None
        some = self._model.selects and not inputs.every and wanted <= buffers.rows
        replay = self._record_ragged(recorder, buffers, some)
        if replay is None or rows < replay.least:
            return None
        buffers.fill_ragged(inputs)
        if not some:
            return self._computed(replay.run(rows, sequences)[0], inputs)
        logits, value, token = replay.run(rows, sequences, wanted)
        return Computed(None, logits, (value, token)) if wanted else Computed()

    def _record_ragged(self, recorder: Recorder, buffers: Buffers, some: bool) -> RaggedReplay | None:
        """Steps with prompts, ``some``: computing the wanted rows alone, with their logits."""

        def all_rows(rows: int, sequences: int, _: int) -> tuple[Tensor, ...]:
            return (self._model.forward(buffers.ragged(rows, sequences, self._caches)),)

        def wanted_rows(rows: int, sequences: int, wanted: int) -> tuple[Tensor, ...]:
            logits = self._model.logits(self._forward(buffers.ragged(rows, sequences, self._caches, wanted)))
            return (logits, *self._ops.best(logits))

        if some not in self._ragged and not self.ragged_plain:
            try:
                self._ragged[some] = recorder.record_ragged(buffers.fill_harmlessly, wanted_rows if some else all_rows)
            except CannotRecord as refused:
                self.ragged_plain = str(refused)
        return self._ragged.get(some)

    def _replay(self, buffers: Buffers, inputs: StepInputs, size: int) -> tuple[Tensor, ...] | None:
        """Replay that size, or record it if it is new; None: it cannot be recorded."""
        decodes = self._decodes
        if decodes is None:
            buffers.fill(inputs, size)
            return self._replays[size].run()
        try:
            decodes.prepare(size)
            buffers.fill(inputs, size)
            return decodes.run(size)
        except CannotRecord as refused:
            self._give_up(refused)
            return None

    def _give_up(self, refused: CannotRecord) -> None:
        self._recorder = self._buffers = self._decodes = None
        self.plain = str(refused)

    def _record(self, recorder: Recorder, buffers: Buffers, size: int) -> None:
        batch = buffers.batch(size, self._caches)
        self._replays[size] = recorder.record(lambda: self._decode(batch))

    def _decode(self, batch: Batch) -> tuple[Tensor, ...]:
        """What a decode step returns: the last hidden states, logits, and of each row the largest and its id."""
        hidden = self._model.forward(batch)
        logits = self._model.logits(hidden)
        return (hidden, logits, *self._ops.best(logits))

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        """On the device."""
        tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.to(self._device, non_blocking=True)

    def _batch(self, inputs: StepInputs) -> Batch:
        """The plain step's batch."""
        put, query_lens, seq_lens = self._put, inputs.query_lens.tolist(), inputs.seq_lens.tolist()
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
        some = self._model.selects and not inputs.every and len(inputs.sample_rows) < len(inputs.token_ids)
        wanted = self._wanted(inputs) if some else None
        return Batch(put(inputs.token_ids), put(inputs.positions), attention, self._caches, wanted=wanted)

    def _wanted(self, inputs: StepInputs) -> Wanted:
        """The rows to sample, as sequences of one row each that store nothing."""
        put, count, lengths = self._put, len(inputs.sample_rows), inputs.sample_length.tolist()
        attention = AttentionBatch(
            query_start=put(np.arange(count + 1, dtype=np.int32)),
            seq_lens=put(inputs.sample_length.astype(np.int32)),
            block_table=put(inputs.block_table[inputs.sample_owner]),
            slots=put(np.full(count, -1, np.int64)),
            block_size=self._block_size, max_query_len=1, max_seq_len=max(lengths, default=0), host=((1,) * count, tuple(lengths)),
        )  # fmt: skip
        return Wanted(put(inputs.sample_rows), attention)
