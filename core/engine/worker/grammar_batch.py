"""Guided sequences that go on together, a token each: the device steps their grammars on its own threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.plugin.contracts.generation import Stepper
from engine.plugin.contracts.operations import GrammarSteps, Operations
from engine.plugin.faults import attributed
from engine.worker.bits import GrammarMasks
from engine.worker.grammar_state import GrammarState
from engine.worker.inputs import StepInputs
from engine.worker.sequences import Sequence

OUTSIDE = "guided decoding failed: the output is outside the grammar"
BROKEN = "the library failed on a token"
#: Status of a row whose calls have not been done.
UNDONE = -(2**31)


class GrammarBatch:
    """The same sequences from step to step, rows ``rows`` of each, as long as every one of them goes on by one token.

    A step's masks are worked out in the draw, or, where the device can, beside the host after the step before: :meth:`lead`.
    Their states learn of the tokens at the end, from :meth:`dissolve`: until then nobody else may ask them.
    """

    def __init__(
        self, sequences: list[Sequence], rows: list[int], owners: list[Sequence], states: list[GrammarState], stepper: Stepper,
        steps: GrammarSteps, ops: Operations,
    ) -> None:  # fmt: skip
        """``sequences``: all of a step, the guided of them ``owners``, in their rows. ``steps`` are those of ``stepper``."""
        self._sequences = sequences
        self._owners = owners
        self._states = states
        self._stepper = stepper
        self._ops = ops
        self._rows = np.array(rows, np.int64)
        self._all = len(rows) == len(sequences)
        #: What their lengths have to be in the next step, as bytes: these compare in a tenth of the time that numpy takes for so few.
        self._lengths = np.array([sequence.length for sequence in owners], np.int64)
        self._due = self._lengths.tobytes()
        self._ends = stepper.apart.union(*(sequence.eos for sequence in owners))
        self._taken: list[list[int]] = []
        #: The tokens that the matchers are a step ahead by, as bytes too.
        self._ahead: bytes | None = None
        self._steps = steps
        worked_here = GrammarMasks(self._rows, steps.bits, {}, steps, self._settle)
        self._known = GrammarMasks(self._rows, steps.bits, {}, None, self._settle)
        self._masks = self._in_draw = worked_here
        self._worked = np.zeros(len(rows), np.int32).tobytes()

    @classmethod
    def of(cls, inputs: StepInputs, words: int, end: int, limit: float, ops: Operations) -> GrammarBatch | None:
        """A batch of the guided sequences of a decode step, masks of so many ``words``. None: they cannot go on together.

        ``end``: the id by which grammars allow one. ``limit``: seconds that a row may take before the batch is :attr:`late`.
        """
        owners, states = [], []
        rows = [row for row, sequence in enumerate(inputs.sequences) if sequence.guided]
        lengths = inputs.sample_length.tolist()
        for row in rows:
            sequence = inputs.sequences[row]
            state = sequence.grammar
            if state is None or _token(state, sequence, lengths[row]) is None:
                return None
            owners.append(sequence)
            states.append(state)
        bits = np.zeros((len(rows), words), np.int32)
        matchers = [state.matcher for state in states]
        stepper = type(matchers[0]).stepper(matchers, bits)
        if stepper is None:
            return None
        status = np.zeros(len(rows), np.int32)
        steps = GrammarSteps(
            stepper.calls, bits, stepper.kept, end, _further_ends(owners, end), status, np.zeros(1, np.int32), limit
        )
        return cls(list(inputs.sequences), rows, owners, states, stepper, steps, ops)

    def stage(self, inputs: StepInputs) -> bool:
        """Prepare the next step, in which every sequence has one row. False: this batch is not what the step is about."""
        if inputs.sequences != self._sequences:
            return False
        lengths, tokens = inputs.sample_length, inputs.token_ids
        if not self._all:
            lengths, tokens = lengths[self._rows], tokens[self._rows]
        if lengths.tobytes() != self._due:
            return False
        taken = tokens.tolist()
        if self._ahead is None:
            if not self._ends.isdisjoint(taken):
                return False
            self._prepare(tokens)
            self._masks = self._in_draw
        elif tokens.tobytes() == self._ahead:
            self._ahead = None
            self._masks = self._known
        else:
            return False
        self._taken.append(taken)
        self._lengths += 1
        self._due = self._lengths.tobytes()
        return True

    def lead(self, tokens: NDArray[np.int64]) -> None:
        """Begin to work out the masks of the step after the one that was staged, which gave these tokens, a row each, and no error."""
        if not self._all:
            tokens = tokens[self._rows]
        if self.late or not self._ends.isdisjoint(tokens.tolist()):
            return
        self._prepare(tokens)
        if self._ops.begin_grammars(self._steps):
            self._ahead = tokens.tobytes()

    def _prepare(self, tokens: NDArray[np.int64]) -> None:
        self._stepper.stage(tokens)
        self._steps.status.fill(UNDONE)

    def masks(self) -> GrammarMasks:
        """Of the step that was staged."""
        return self._masks

    @property
    def late(self) -> bool:
        """Whether a row has taken longer than allowed."""
        return bool(self._steps.late[0])

    def dissolve(self) -> None:
        """Tell the states what their matchers have seen, whether or not the last step's calls were done."""
        ahead = self._ahead is not None
        if ahead:
            self._ops.finish_grammars()
            self._ahead = None
        elif not self._taken:
            return
        status, refused = self._steps.status.tolist(), self._stepper.refused()
        sure = self._taken if ahead else self._taken[:-1]
        for place, (sequence, state) in enumerate(zip(self._owners, self._states, strict=True)):
            if status[place] not in (0, UNDONE):
                sequence.grammar = None  # what state its matcher is in nobody knows
                continue
            took = status[place] == 0 and place not in refused
            if took and ahead:
                state.matcher.rollback(1)
            state.advanced([tokens[place] for tokens in (self._taken if took else sure)])
        self._taken = []

    def _settle(self) -> dict[int, str]:
        """After the calls: the rows whose grammars did not take their token, or could not be asked."""
        refused = self._stepper.refused()
        if not refused and self._steps.status.tobytes() == self._worked:
            return {}
        broken = np.flatnonzero(self._steps.status).tolist()
        texts = dict.fromkeys(refused, OUTSIDE) | {place: blamed(self._owners[place], BROKEN) for place in broken}
        return {int(self._rows[place]): text for place, text in texts.items()}


def _token(state: GrammarState, sequence: Sequence, length: int) -> int | None:
    """The one token that the sequence's matcher lacks, if it lacks one."""
    try:
        return state.catch_up(sequence, length)
    except Exception:  # noqa: BLE001 - asked alone it will raise again, and be told as its own request's failure
        return None


def blamed(sequence: Sequence, cause: str) -> str:
    """What to say of a failure of the sequence's backend."""
    guide = sequence.params.guide
    return attributed("guided_decoding", (guide.backend if guide is not None else None) or "auto", cause)


def _further_ends(sequences: list[Sequence], end: int) -> NDArray[np.int64]:
    """The other ends of each beside ``end``, padded with -1."""
    ends = [[token for token in sequence.eos if token != end] for sequence in sequences]
    width = max(map(len, ends))
    return np.array([each + [-1] * (width - len(each)) for each in ends], np.int64).reshape(len(ends), width)
