"""The decode step after the present one, begun while the engine decides on it: mostly it is the same sequences, each a token further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.worker.inputs import StepInputs, Successor, advance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.plugin.step import SequenceResult, Step, Work
    from engine.worker.runner import StepRunner
    from engine.worker.sequences import Sequence, SequenceTable

#: Tokens that each sequence has got here before steps are begun for it: until then the engine must be able to say for whom it works
#: (:data:`engine.record.PROVEN`).
SETTLED = 4


class Early:
    """Begins the step that will follow, where nothing in sight ends or changes one of its sequences, and knows it again when it comes.

    What was begun and is not asked for is ended. It has written keys and values beyond the ends of its sequences alone, where
    whoever comes next writes his own before he reads.
    """

    def __init__(self, runner: StepRunner, table: SequenceTable) -> None:
        self._runner = runner
        self._table = table
        self._inputs: StepInputs | None = None
        #: The step that may follow the claimed one by itself, and what may end its sequences.
        self.successor: Successor | None = None
        self._ends: tuple[list[Sequence], NDArray[np.int64], NDArray[np.int32]] | None = None

    def begin(self, work: list[Work], inputs: StepInputs, results: list[SequenceResult]) -> None:
        """After a step with these results."""
        if self.successor is not None and self._runner.begun is self.successor.inputs:
            self._inputs = self.successor.inputs
            return
        if not inputs.decode:
            return
        tokens = []
        block_size = self._table.block_size
        for item, sequence, result in zip(work, inputs.sequences, results, strict=True):
            if item.last or len(result.token_ids) != 1 or result.proposed or result.error is not None:
                return
            if result.token_ids[0] in sequence.ends or not _can_go_on(sequence, block_size):
                return
            tokens.append(result.token_ids[0])
        following = advance(self._table, inputs, tokens)
        if self._runner.begin(following):
            self._inputs = following

    def claim(self, step: Step) -> StepInputs | None:
        """The inputs of the step if it is the one that was begun, applied to its sequences; else None, and nothing runs any more."""
        inputs, self._inputs = self._inputs, None
        self.successor = None
        if inputs is None or _moves(step) or not _goes_on(step.work, inputs):
            self._runner.drop()
            return None
        for item in step.work:
            self._table.advance(item)
        self.successor = self._foresee(step.work, inputs)
        return inputs

    def _foresee(self, work: list[Work], inputs: StepInputs) -> Successor | None:
        """The step after a claimed one, where all its rows are simply greedy: then the device can go on by itself."""
        block_size = self._table.block_size
        for item, sequence in zip(work, inputs.sequences, strict=True):
            if item.last or not sequence.greedy or not sequence.simple or sequence.guided or not _can_go_on(sequence, block_size):
                return None
        if self._ends is None or self._ends[0] is not inputs.sequences:
            ends = [sorted(sequence.ends) for sequence in inputs.sequences]
            flat = np.array([token for each in ends for token in each], np.int64)
            self._ends = inputs.sequences, flat, np.array([len(each) for each in ends], np.int32).cumsum(dtype=np.int32)
        return Successor(advance(self._table, inputs), *self._ends[1:])

    def drop(self) -> None:
        """End what was begun."""
        self._inputs = None
        self._runner.drop()


def _can_go_on(sequence: Sequence, block_size: int) -> bool:
    """Whether its next token has a page, and it is past its beginning."""
    return sequence.known + SETTLED <= sequence.length < sequence.blocks * block_size


def _moves(step: Step) -> bool:
    return bool(step.new or step.ended or step.preempted or step.swap_in or step.swap_out or step.copies)


def _goes_on(work: list[Work], inputs: StepInputs) -> bool:
    """Whether each sequence computes the one token that was sampled for it."""
    if len(work) != len(inputs.sequences):
        return False
    for item, sequence in zip(work, inputs.sequences, strict=True):
        if item.seq != sequence.seq or item.start != sequence.length or item.count != 1 or item.draft or not item.sample:
            return False
        if not (item.ahead and not item.append) and item.append != [sequence.sampled]:
            return False
    return True
