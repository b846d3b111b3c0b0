"""The decode step after the present one, begun while the engine decides on it: mostly it is the same sequences, each a token further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.worker.inputs import StepInputs, advance

if TYPE_CHECKING:
    from engine.plugin.step import SequenceResult, Step, Work
    from engine.worker.runner import StepRunner
    from engine.worker.sequences import SequenceTable

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

    def begin(self, work: list[Work], inputs: StepInputs, results: list[SequenceResult]) -> None:
        """After a step with these results."""
        if not inputs.decode:
            return
        tokens = []
        block_size = self._table.block_size
        for item, sequence, result in zip(work, inputs.sequences, results, strict=True):
            if item.last or len(result.token_ids) != 1 or result.proposed or result.error is not None:
                return
            token, length = result.token_ids[0], sequence.length
            if token in sequence.ends or length >= sequence.blocks * block_size or length < sequence.known + SETTLED:
                return
            tokens.append(token)
        following = advance(self._table, inputs, tokens)
        if self._runner.begin(following):
            self._inputs = following

    def claim(self, step: Step) -> StepInputs | None:
        """The inputs of the step if it is the one that was begun, applied to its sequences; else None, and nothing runs any more."""
        inputs, self._inputs = self._inputs, None
        if inputs is None:
            return None
        if _moves(step) or not _goes_on(step.work, inputs):
            self._runner.drop()
            return None
        for item in step.work:
            self._table.advance(item)
        return inputs

    def drop(self) -> None:
        """End what was begun."""
        if self._inputs is not None:
            self._inputs = None
            self._runner.drop()


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
