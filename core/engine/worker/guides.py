"""Grammars of guided sequences in the worker: their states follow the tokens, their masks are ready when the logits are."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.guided.store import GuideStore
from engine.plugin.contracts.generation import Matcher
from engine.plugin.faults import attributed, described
from engine.plugin.request import GuideSpec
from engine.plugin.step import NewSequence, SequenceResult
from engine.worker.bits import allow, forbid, has, unpack
from engine.worker.inputs import StepInputs
from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor

#: Most seconds that a step waits for a constraint that is still being compiled. The front end has seen it compile in less.
PATIENCE = 10.0
#: Processor seconds of one position after which a sequence ends: everybody in the step waits for it.
MOST_SECONDS = 0.25
#: Most tokens that are proposed because the grammar forces them, and most sequences of a step in which that pays: every proposed token
#: is a further row, which costs little only while reading the weights is what a step takes.
MOST_FORCED, FEW = 8, 4
#: Proposals of a sequence that may fail at their first token before it gets no more: the model spells forced texts in another way.
MOST_MISSES = 2
#: Most tokens of line breaks between the end of the thinking and the grammar's first token. Models put a blank line there.
LEAD = 2


class GrammarState:
    """Follows one sequence through its grammar; ``trail`` are the tokens since its beginning that the matcher has seen."""

    __slots__ = ("_after", "_begin", "_blanks", "_ended", "_ends", "_leading", "_matcher", "_misses", "_opens", "_proposed", "_trail")

    def __init__(
        self, matcher: Matcher, sequence: Sequence, after: tuple[int, ...], opens: tuple[int, ...] = (), blanks: tuple[int, ...] = ()
    ) -> None:
        """``after``, ``opens``: where the grammar begins, as :class:`GuideSpec` has it. ``blanks``: the tokens of line breaks, of which
        a few may lie between the thinking and the grammar, unless it takes them itself."""
        self._matcher = matcher
        self._blanks = blanks if after and not _takes_any(matcher, blanks) else ()
        #: Whether another blank may come here.
        self._leading = False
        self._misses = 0
        self._proposed: list[int] = []
        self._opens = opens
        self._after = after
        self._ends = frozenset(sequence.eos)
        self._begin: int | None = sequence.num_prompt if not after else None
        self._trail: list[int] = []
        #: Place in the trail of the first end token, where the matcher stopped to follow.
        self._ended: int | None = None

    def seek(self, sequence: Sequence, length: int) -> bool | None:
        """Bring the matcher to the first ``length`` tokens, forwards or backwards. None: the grammar has not begun there.
        False: they are no beginning of a sentence."""
        begin = self._start(sequence, length)
        if begin is None:
            self._retreat(0)
            return None
        wanted: list[int] = sequence.tokens[begin:length].tolist()
        trail = self._trail
        if trail != wanted[: len(trail)]:
            self._retreat(next((i for i, (a, b) in enumerate(zip(trail, wanted, strict=False)) if a != b), len(wanted)))
        return all(self._step(token) for token in wanted[len(self._trail) :])

    @property
    def ended(self) -> bool:
        """Whether an end token has come."""
        return self._ended is not None

    def fill(self, mask: NDArray[np.int32]) -> None:
        """The tokens that may come now; the mask is zeroed before."""
        self._matcher.fill(mask)
        if self._leading:
            allow(mask, self._blanks)

    def foresee(self, sequence: Sequence, tokens: list[int]) -> list[int]:
        """What probably comes after ``tokens``, which were just sampled, because the grammar forces the text: to be proposed as drafts."""
        self._misses += bool(self._proposed) and tokens[:1] != self._proposed[:1]
        self._proposed = []
        if self._misses > MOST_MISSES or not self.seek(sequence, sequence.length):
            return []
        if not all(self._step(token) for token in tokens) or self._ended is not None:
            return []
        self._proposed = list(self._matcher.forced()[:MOST_FORCED])
        return list(self._proposed)

    def _start(self, sequence: Sequence, length: int) -> int | None:
        """Where the grammar begins: with the output, or after the first occurrence of its marker in it and the blanks after that."""
        self._leading = False
        if not self._after:
            return self._begin
        if self._opens and not self._opened(sequence, length):
            return sequence.num_prompt
        begin = self._after_marker(sequence, length)
        if begin is None or not self._blanks:
            return begin
        blank = 0
        while blank < min(LEAD, length - begin) and int(sequence.tokens[begin + blank]) in self._blanks:
            blank += 1
        self._leading = begin + blank == length and blank < LEAD
        return begin + blank

    def _after_marker(self, sequence: Sequence, length: int) -> int | None:
        """The place after the first occurrence of the marker."""
        if self._begin is not None and self._begin <= length:
            marker = sequence.tokens[self._begin - len(self._after) : self._begin]
            if tuple(marker.tolist()) == self._after:
                return self._begin
        output = sequence.tokens[sequence.num_prompt : length].tolist()
        size = len(self._after)
        ends = (i + size for i in range(len(output) - size + 1) if tuple(output[i : i + size]) == self._after)
        found = next(ends, None)
        self._begin = None if found is None else sequence.num_prompt + found
        self._retreat(0)
        return self._begin

    def _opened(self, sequence: Sequence, length: int) -> bool:
        """Whether the output has begun to think."""
        first = sequence.tokens[sequence.num_prompt : min(length, sequence.num_prompt + len(self._opens))]
        return tuple(first.tolist()) == self._opens

    def _step(self, token: int) -> bool:
        if self._ended is None:
            if token in self._ends:
                self._ended = len(self._trail)
            elif not self._matcher.advance([token]):
                return False
        self._trail.append(token)
        return True

    def _retreat(self, length: int) -> None:
        """Undo the trail beyond its first ``length`` tokens."""
        followed = len(self._trail) if self._ended is None else self._ended
        if followed > length:
            self._matcher.rollback(followed - length)
        if self._ended is not None and self._ended >= length:
            self._ended = None
        del self._trail[length:]


@dataclass(frozen=True, slots=True, eq=False)
class Masks32:
    """Bit masks of some rows: ``rows[i]`` of the logits allows what ``bits[i]`` says; ``errors`` by row. ``forbidden``: the same as one
    byte per token, bool [rows, 32·words], where the logits are the host's."""

    rows: list[int]
    bits: NDArray[np.int32]
    errors: dict[int, str]
    forbidden: Tensor | None = None


class Grammars:
    """All guided sequences of a worker. :meth:`begin` before the forward pass, :meth:`apply` after it."""

    def __init__(self, store: GuideStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "masks")
        self._pending: Future[Masks32] | None = None
        #: Whether the logits are the host's, as far as seen.
        self._host = False

    def prepare(self, spec: GuideSpec) -> bool:
        """Start compiling, if that is not done; whether the guide is ready. Raises what compiling raised."""
        guide = self._store.get(spec)
        if guide.done():
            guide.result()
        return guide.done()

    def admit(self, new: list[NewSequence]) -> None:
        """Compile the constraints of new sequences while their prompts are computed."""
        for sequence in new:
            if sequence.params.guide is not None:
                self._store.get(sequence.params.guide)

    def begin(self, inputs: StepInputs) -> None:
        """Work out the masks of the guided ones among the rows to sample, beside whatever the caller does next."""
        self._pending = None
        if not any(sequence.guided for sequence in inputs.sequences):
            return
        owners = [inputs.sequences[owner] for owner in inputs.sample_owner.tolist()]
        rows = [i for i, sequence in enumerate(owners) if sequence.guided]
        if rows:
            lengths = inputs.sample_length[rows].tolist()
            self._pending = self._thread.submit(self._fill, rows, [owners[i] for i in rows], lengths)

    def apply(self, scores: Tensor) -> dict[int, str]:
        """Set what the grammars forbid to −∞ in scores [R, V], in place; errors by row."""
        if self._pending is None:
            return {}
        masks, self._pending = self._pending.result(), None
        self._host = scores.device.type == "cpu"
        if masks.rows:
            forbid(scores, masks.rows, masks.bits, masks.forbidden)
        return masks.errors

    def foresee(self, inputs: StepInputs, results: list[SequenceResult]) -> list[SequenceResult]:
        """The results of a step with the tokens that grammars force as proposals for the next. Call it after :meth:`apply`."""
        if len(results) > FEW:
            return results
        return [self._with_forced(*pair) for pair in zip(inputs.sequences, results, strict=True)]

    def _with_forced(self, sequence: Sequence, result: SequenceResult) -> SequenceResult:
        state = sequence.grammar
        if state is None or not result.token_ids or result.error is not None:
            return result
        try:
            proposed = state.foresee(sequence, result.token_ids)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is its own request's failure
            return msgspec.structs.replace(result, error=_failed(sequence, error))
        return msgspec.structs.replace(result, proposed=proposed) if proposed else result

    def close(self) -> None:
        """End the threads."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    def _fill(self, rows: list[int], sequences: list[Sequence], lengths: list[int]) -> Masks32:
        bits = np.zeros((len(rows), -(-self._store.width // 32)), np.int32)
        errors: dict[int, str] = {}
        masked = []
        for place, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            try:
                if self._fill_row(sequence, length, bits[place]):
                    masked.append(place)
            except _Refused as refused:
                errors[rows[place]] = f"guided decoding failed: {refused}"
            except Exception as error:  # noqa: BLE001 - whatever a backend raises is its own request's failure
                errors[rows[place]] = _failed(sequence, error)
        chosen = bits if len(masked) == len(rows) else bits[masked]
        return Masks32([rows[place] for place in masked], chosen, errors, unpack(chosen) if self._host else None)

    def _fill_row(self, sequence: Sequence, length: int, bits: NDArray[np.int32]) -> bool:
        """One row's mask; False where nothing is masked."""
        state = self._state(sequence)
        follows = state.seek(sequence, length)
        if follows is None:
            return False
        if not follows:
            if length > sequence.length:  # after a draft that the row before forbids: nobody reads this row
                return False
            raise _Refused("the output is outside the grammar")
        if state.ended:
            allow(bits, sequence.eos or (self._store.end,))
            return True
        began = time.thread_time()
        state.fill(bits)
        if time.thread_time() - began > MOST_SECONDS:
            raise _Refused("finding the allowed tokens takes too long")
        if has(bits, self._store.end):
            allow(bits, sequence.eos)
        elif not bits.any():
            raise _Refused("the grammar allows no token here")
        if length == sequence.num_prompt and sequence.params.guide is not None:
            allow(bits, sequence.params.guide.opens[:1])
        return True

    def _state(self, sequence: Sequence) -> GrammarState:
        if sequence.grammar is None:
            spec = sequence.params.guide
            if spec is None:
                raise _Refused("the sequence has no constraint")
            guide = self._store.get(spec).result(PATIENCE)
            blanks = self._store.blanks if spec.start_after else ()
            sequence.grammar = GrammarState(guide.start(), sequence, spec.start_after, spec.opens, blanks)
        return sequence.grammar


class _Refused(Exception):
    """The constraint and the output do not go together; nothing is wrong with the backend."""


def _failed(sequence: Sequence, error: Exception) -> str:
    guide = sequence.params.guide
    return attributed("guided_decoding", (guide.backend if guide is not None else None) or "auto", described(error))


def _takes_any(matcher: Matcher, tokens: tuple[int, ...]) -> bool:
    """Whether a text of the grammar begins with one of the tokens."""
    for token in tokens:
        if matcher.advance([token]):
            matcher.rollback(1)
            return True
    return False
