"""Grammars of guided sequences in the worker: their states follow the tokens, their masks are ready when the logits are."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.guided.store import GuideStore
from engine.plugin.contracts.generation import Matcher
from engine.plugin.contracts.operations import Operations
from engine.plugin.faults import described
from engine.plugin.request import GuideSpec
from engine.plugin.step import NewSequence, SequenceResult
from engine.worker.beside import Beside
from engine.worker.bits import NOTHING, GrammarMasks, allow, has, rows_with
from engine.worker.grammar_batch import OUTSIDE, GrammarBatch, blamed
from engine.worker.grammar_state import GrammarState
from engine.worker.inputs import StepInputs
from engine.worker.sequences import Sequence

#: Most seconds that a step waits for a constraint that is still being compiled. The front end has seen it compile in less.
PATIENCE = 10.0
#: Processor seconds of one position after which a sequence ends: everybody in the step waits for it.
MOST_SECONDS = 0.25
#: Most sequences of a step in which proposing forced tokens pays: every proposed token is a further row.
FEW = 4


@dataclass(slots=True)
class _Filling:
    """Masks in the making: of some sequences of a step, which are to have ``lengths`` tokens then."""

    sequences: list[Sequence]
    lengths: list[int]
    bits: NDArray[np.int32]
    #: By place in ``sequences``: no mask is needed, or there is none.
    free: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)


class Grammars:
    """All guided sequences of a worker. :meth:`begin` before the forward pass, :meth:`take` after it."""

    def __init__(self, store: GuideStore, ops: Operations | None = None) -> None:
        """``ops``: the device's, which may step grammars on its own threads."""
        self._store = store
        self._ops = ops if ops is not None and ops.steps_grammars else None
        #: Sequences that the device steps, and whether the step that has begun is theirs.
        self._batch: GrammarBatch | None = None
        self._staged = False
        self._beside: Beside[GrammarMasks] = Beside("masks")
        #: Whether filling all rows at once took too long, so that each is watched by itself.
        self._watched = False

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
        self._beside.forget()
        self._staged = False
        if not any([sequence.guided for sequence in inputs.sequences]):  # noqa: C419 - a list is quicker than a generator
            self._part()
            return
        if self._go_on(inputs):
            self._staged = True
            return
        owners = [inputs.sequences[owner] for owner in inputs.sample_owner.tolist()]
        lengths = inputs.sample_length.tolist()
        rows = [i for i, sequence in enumerate(owners) if sequence.guided]
        if len(rows) < len(owners):
            owners, lengths = [owners[i] for i in rows], [lengths[i] for i in rows]
        if rows:
            self._beside.ask(lambda: self._fill(rows, owners, lengths))

    def take(self) -> GrammarMasks | None:
        """The masks of this step's rows; None where no row is guided."""
        return self._batch.masks() if self._staged and self._batch is not None else self._beside.answer()

    def lead(self, tokens: NDArray[np.int64]) -> None:
        """Begin to work out the masks of the next step, where this one's were the device's: it gave every row its token."""
        if self._staged and self._batch is not None:
            self._batch.lead(tokens)

    def foresee(self, inputs: StepInputs, results: list[SequenceResult]) -> list[SequenceResult]:
        """The results of a step with the tokens that grammars force as proposals for the next. Call it after :meth:`take`."""
        if len(results) > FEW:
            return results
        self._part()
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
        if self._ops is not None:
            self._ops.finish_grammars()
        self._beside.close()
        self._store.close()

    def _go_on(self, inputs: StepInputs) -> bool:
        """Whether this step's grammars are left to the device; else nothing stands between their states and their matchers."""
        count = len(inputs.sequences)
        if self._ops is not None and not self._watched and inputs.decode and count > FEW and len(inputs.sample_rows) == count:
            if self._batch is not None and self._batch.late:
                self._watched = True
            elif self._batch is not None and self._batch.stage(inputs):
                return True
            self._part()
            if not self._watched:
                self._batch = GrammarBatch.of(inputs, -(-self._store.width // 32), self._store.end, MOST_SECONDS, self._ops)
                if self._batch is not None and self._batch.stage(inputs):
                    return True
        self._part()
        return False

    def _part(self) -> None:
        """Have the states know again what their matchers have seen."""
        if self._batch is not None:
            self._batch.dissolve()
            self._batch = None

    def _fill(self, rows: list[int], sequences: list[Sequence], lengths: list[int]) -> GrammarMasks:
        bits = np.zeros((len(rows), -(-self._store.width // 32)), np.int32)
        filling = _Filling(sequences, lengths, bits)
        began = time.thread_time()
        for place in self._fill_together(filling):
            try:
                if not self._fill_row(sequences[place], lengths[place], bits[place]):
                    filling.free.add(place)
            except _Refused as refused:
                filling.errors[place] = str(refused)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises is its own request's failure
                filling.errors[place] = _failed(sequences[place], error)
        self._watched = time.thread_time() - began > MOST_SECONDS
        without = filling.free | filling.errors.keys()
        errors = {rows[place]: text for place, text in filling.errors.items()}
        if not without:
            return GrammarMasks(np.array(rows, np.int64), bits, errors)
        masked = [place for place in range(len(rows)) if place not in without]
        return GrammarMasks(np.array([rows[place] for place in masked], np.int64), bits[masked], errors)

    def _fill_together(self, filling: _Filling) -> list[int]:
        """Fill the rows whose backends step many sequences in one call; the places of the others."""
        places = range(len(filling.sequences))
        if self._watched:
            return list(places)
        kinds: dict[type[Matcher], tuple[list[int], list[Matcher], list[int]]] = {}
        others = []
        for place, sequence, length in zip(places, filling.sequences, filling.lengths, strict=True):
            state = sequence.grammar
            token = state.next_token(sequence, length) if state is not None else None
            if state is None or token is None:
                others.append(place)
                continue
            chosen, matchers, tokens = kinds.setdefault(type(state.matcher), ([], [], []))
            chosen.append(place)
            matchers.append(state.matcher)
            tokens.append(token)
        for kind, (chosen, matchers, tokens) in kinds.items():
            if not self._step_kind(kind, filling, chosen, matchers, tokens):
                others += chosen
        return others

    def _step_kind(
        self, kind: type[Matcher], filling: _Filling, places: list[int], matchers: list[Matcher], tokens: list[int]
    ) -> bool:
        """Step the matchers of one backend and complete their rows. False: that is to be done one by one."""
        try:
            refused = kind.step(matchers, tokens, filling.bits, places)
        except Exception:  # noqa: BLE001 - the state of each is unknown now: begun anew one by one, each is told of its own failure
            for place in places:
                filling.sequences[place].grammar = None
                filling.bits[place] = 0
            return False
        if refused is None:
            return False
        for place in refused:
            filling.errors[places[place]] = OUTSIDE
        more = False
        for place, token in zip(places, tokens, strict=True):
            state = filling.sequences[place].grammar
            if state is not None and (not refused or place not in filling.errors):
                state.advanced([token])
                more = more or state.more_ends
        if more:
            self._allow_ends(filling, places)
        return True

    def _allow_ends(self, filling: _Filling, places: list[int]) -> None:
        """The ends that requests give their outputs, where the grammar allows an end."""
        bits = filling.bits if len(places) == len(filling.sequences) else filling.bits[places]
        for index in rows_with(bits, self._store.end):
            allow(filling.bits[places[index]], filling.sequences[places[index]].eos)

    def _fill_row(self, sequence: Sequence, length: int, bits: NDArray[np.int32]) -> bool:
        """One row's mask; False where nothing is masked."""
        state = self._state(sequence)
        follows = state.seek(sequence, length)
        if follows is None:
            return False
        if not follows:
            if length > sequence.length:  # after a draft that the row before forbids: nobody reads this row
                return False
            raise _Refused(OUTSIDE)
        if state.ended:
            allow(bits, sequence.eos or (self._store.end,))
            return True
        began = time.thread_time()
        state.fill(bits)
        if time.thread_time() - began > MOST_SECONDS:
            raise _Refused("guided decoding failed: finding the allowed tokens takes too long")
        if has(bits, self._store.end):
            allow(bits, sequence.eos)
        elif not bits.any():
            raise _Refused(NOTHING)
        if length == sequence.num_prompt and sequence.params.guide is not None:
            allow(bits, sequence.params.guide.opens[:1])
        return True

    def _state(self, sequence: Sequence) -> GrammarState:
        if sequence.grammar is None:
            spec = sequence.params.guide
            if spec is None:
                raise _Refused("guided decoding failed: the sequence has no constraint")
            guide = self._store.get(spec).result(PATIENCE)
            blanks = self._store.blanks if spec.start_after else ()
            sequence.grammar = GrammarState(guide.start(), sequence, spec.start_after, spec.opens, blanks)
            sequence.grammar.more_ends = any(token != self._store.end for token in sequence.eos)
        return sequence.grammar


class _Refused(Exception):
    """The constraint and the output do not go together; nothing is wrong with the backend."""


def _failed(sequence: Sequence, error: Exception) -> str:
    return blamed(sequence, described(error))
