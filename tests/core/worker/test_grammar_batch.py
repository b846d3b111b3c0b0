"""Guided sequences whose grammars the device steps: from step to step, joined by others, failing, and left again."""

from __future__ import annotations

import numpy as np
import pytest

from engine.plugin import Stepper, Work
from engine.worker.grammar_batch import BROKEN
from engine.worker.guides import FEW, Grammars
from engine.worker.inputs import assemble
from engine.worker.sequences import SequenceTable
from tests.core.worker.languages import END, WIDTH, Ready, Words, sequence

WORDS = [1, 2, 3, 4, 5, 6]
COUNT = FEW + 2


class Stepping(Stepper):
    """``run`` is what calls would do."""

    def __init__(self, matchers, masks):
        self.matchers, self.masks = matchers, masks
        self.calls = np.zeros((len(matchers), 1, 5), np.uint64)
        self.kept = np.zeros(len(matchers), np.uint64)
        self.taken = [True] * len(matchers)

    def stage(self, token_ids):
        self.tokens, self.taken = token_ids.tolist(), [False] * len(self.matchers)

    def refused(self):
        return [place for place, took in enumerate(self.taken) if not took]

    def run(self):
        for place, (matcher, token) in enumerate(zip(self.matchers, self.tokens, strict=True)):
            self.taken[place] = matcher.advance([token])
            self.masks[place] = 0
            matcher.fill(self.masks[place])


class Native(Words):
    """Has a stepper."""

    steppers = []

    @classmethod
    def stepper(cls, matchers, masks):
        cls.steppers.append(Stepping(matchers, masks))
        return cls.steppers[-1]


class Device:
    """Does what is begun when somebody waits for it; row ``broken`` fails."""

    steps_grammars = True

    def __init__(self):
        self.begun, self.broken = None, None

    def begin_grammars(self, steps):
        self.begun = steps
        return True

    def finish_grammars(self):
        steps, self.begun = self.begun, None
        if steps is not None:
            Native.steppers[-1].run()
            steps.status[:] = [7 if i == self.broken else 0 for i in range(len(steps.status))]


@pytest.fixture
def steppers():
    Native.steppers.clear()
    return Native.steppers


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def grammars(steppers, device):
    made = Grammars(Ready(WORDS, Native), device)
    yield made
    made.close()


def step(grammars, seqs, broken=(), drafts=()):
    """One decode step, with drafts of the first: the allowed tokens of each row, the errors, and whether the device did it."""
    table = SequenceTable(4, 64, len(seqs))
    for i, seq in enumerate(seqs):
        table._sequences[i] = seq
    work = []
    for i, seq in enumerate(seqs):
        draft = [] if i else list(drafts)
        work.append(Work(seq=i, start=seq.length - 1, count=1 + len(draft), draft=draft, blocks=list(range(16))))
    grammars.begin(assemble(table, work))
    masks = grammars.take()
    if masks.steps is not None:
        Native.steppers[-1].run()
        masks.steps.status[:] = [7 if i in broken else 0 for i in range(len(masks.rows))]
    allowed = {int(row): {t for t in range(WIDTH) if bits[0] >> t & 1} for row, bits in zip(masks.rows, masks.bits, strict=True)}
    return allowed, masks.failed(), masks.steps is not None


def on(seqs, token):
    for seq in seqs:
        seq.extend([token], [])


def test_one_batch_from_step_to_step(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    assert step(grammars, seqs) == ({i: {1} for i in range(COUNT)}, {}, False)
    for token in (1, 2, 3):
        on(seqs, token)
        assert step(grammars, seqs) == ({i: {token + 1} for i in range(COUNT)}, {}, True)
    assert len(steppers) == 1


def test_who_leaves_and_who_comes(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    for token in (1, 2):
        on(seqs, token)
        step(grammars, seqs)
    seqs[2] = sequence([])
    on([seq for i, seq in enumerate(seqs) if i != 2], 3)
    assert step(grammars, seqs) == ({i: {1} if i == 2 else {4} for i in range(COUNT)}, {}, False)
    on([seq for i, seq in enumerate(seqs) if i != 2], 4)
    on([seqs[2]], 1)
    assert step(grammars, seqs) == ({i: {2} if i == 2 else {5} for i in range(COUNT)}, {}, True)
    assert step(grammars, seqs[:FEW])[2] is False and len(steppers) == 2


def test_unguided_rows_between(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    seqs[1].guided = False
    for token in (None, 1, 2):
        if token:
            on(seqs, token)
        allowed, errors, native = step(grammars, seqs)
        assert allowed == {i: {(token or 0) + 1} for i in range(COUNT) if i != 1} and not errors and native is (token is not None)


@pytest.mark.parametrize("came", [[1, 2, 3], [1, 2], [1]])
def test_one_that_jumped_goes_on_with_the_others(grammars, steppers, came):
    seqs = [sequence([]) for _ in range(COUNT)]
    assert step(grammars, seqs, drafts=[1, 2])[1:] == ({}, False)
    on(seqs[1:], 1)
    seqs[0].extend(came, [])
    assert step(grammars, seqs) == ({i: {2} if i else {came[-1] + 1} for i in range(COUNT)}, {}, True)


def test_one_that_jumped_out_of_its_grammar_and_one_whose_backend_fails(grammars, steppers, monkeypatch):
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs[2:], 1)
    seqs[0].extend([1, 5, 3], [])
    seqs[1].extend([1, 2], [])
    whole = seqs[1].grammar.matcher.advance
    monkeypatch.setattr(seqs[1].grammar.matcher, "advance", lambda tokens: whole(tokens) if tokens != [1] else 1 / 0)
    allowed, errors, native = step(grammars, seqs)
    assert not native and list(errors) == [0, 1] and "outside the grammar" in errors[0] and "ZeroDivisionError" in errors[1]
    assert allowed == {i: {2} for i in range(2, COUNT)}


def test_ends_are_no_tokens_of_grammars(grammars, steppers):
    seqs = [sequence(WORDS[:-1]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs, 6)
    assert step(grammars, seqs) == ({i: {END} for i in range(COUNT)}, {}, True)
    on(seqs, END)
    assert step(grammars, seqs) == ({i: {END} for i in range(COUNT)}, {}, False)


def test_one_that_leaves_its_grammar_and_one_whose_library_fails(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs[:-1], 1)
    on(seqs[-1:], 5)
    allowed, errors, native = step(grammars, seqs, broken=[0])
    assert native and list(errors) == [COUNT - 1, 0] and "outside the grammar" in errors[COUNT - 1] and BROKEN in errors[0]
    assert all(allowed[i] == {2} for i in range(1, COUNT - 1))
    on(seqs, 2)
    assert step(grammars, seqs[1:-1]) == ({i: {3} for i in range(COUNT - 2)}, {}, False)


def test_a_step_that_nobody_did_is_done_again(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs, 1)
    table = SequenceTable(4, 64, COUNT)
    for i, seq in enumerate(seqs):
        table._sequences[i] = seq
    work = [Work(seq=i, start=seq.length - 1, count=1, blocks=list(range(16))) for i, seq in enumerate(seqs)]
    grammars.begin(assemble(table, work))
    assert grammars.take().steps is not None
    assert step(grammars, seqs) == ({i: {2} for i in range(COUNT)}, {}, True)


def test_a_late_row_has_all_watched_one_by_one(grammars, steppers):
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs, 1)
    step(grammars, seqs)
    grammars._batch._steps.late[0] = 1
    on(seqs, 2)
    assert step(grammars, seqs) == ({i: {3} for i in range(COUNT)}, {}, False)
    on(seqs, 3)
    assert step(grammars, seqs) == ({i: {4} for i in range(COUNT)}, {}, True)


def lead(grammars, device, seqs, tokens):
    """What comes after a step: its tokens are told and committed, and the device goes on by them."""
    grammars.lead(np.array(tokens, np.int64))
    begun = device.begun is not None
    for seq, token in zip(seqs, tokens, strict=True):
        seq.extend([token], [])
    return begun


@pytest.fixture
def led(grammars, device):
    """Sequences that a step has led: their masks after token 2 are begun, and 2 is committed."""
    seqs = [sequence([]) for _ in range(COUNT)]
    step(grammars, seqs)
    on(seqs, 1)
    assert step(grammars, seqs) == ({i: {2} for i in range(COUNT)}, {}, True)
    assert lead(grammars, device, seqs, [2] * COUNT)
    return seqs


def ready(grammars, device, seqs):
    """A decode step before whose draw the device is done with what was begun."""
    device.finish_grammars()
    return step(grammars, seqs)


def test_masks_that_were_begun_after_the_step_before(grammars, device, steppers, led):
    for token in (3, 4):
        assert ready(grammars, device, led) == ({i: {token} for i in range(COUNT)}, {}, False)
        assert lead(grammars, device, led, [token] * COUNT)
    assert len(steppers) == 1


def test_who_leaves_when_masks_were_begun(grammars, device, steppers, led):
    assert step(grammars, led[1:]) == ({i: {3} for i in range(COUNT - 1)}, {}, True)
    assert lead(grammars, device, led[1:], [3] * (COUNT - 1))
    led[0].extend([3], [])
    assert step(grammars, led) == ({i: {4} for i in range(COUNT)}, {}, True), "who left is two tokens behind"
    assert len(steppers) == 3


def test_who_goes_on_otherwise_than_was_begun(grammars, device, led):
    led[0].tokens[led[0].length - 1] = led[0].last = 1
    allowed, errors, _ = step(grammars, led)
    assert list(errors) == [0] and all(allowed[i] == {3} for i in range(1, COUNT))


def test_a_step_of_few_after_masks_were_begun(grammars, device, led):
    assert step(grammars, led[:FEW]) == ({i: {3} for i in range(FEW)}, {}, False)
    on(led[:FEW], 3)
    assert step(grammars, led[:FEW]) == ({i: {4} for i in range(FEW)}, {}, False)


def test_ends_begin_nothing(grammars, device, led):
    assert ready(grammars, device, led)[0][0] == {3}
    assert not lead(grammars, device, led, [3] * (COUNT - 1) + [END])


def test_masks_begun_for_one_that_leaves_its_grammar_and_one_whose_library_fails(grammars, device, led):
    assert ready(grammars, device, led)[1] == {}
    device.broken = 0
    lead(grammars, device, led, [3] * (COUNT - 1) + [5])
    allowed, errors, native = ready(grammars, device, led)
    assert not native and list(errors) == [COUNT - 1, 0] and "outside the grammar" in errors[COUNT - 1] and BROKEN in errors[0]
    assert all(allowed[i] == {4} for i in range(1, COUNT - 1))
    on(led, 4)
    assert step(grammars, led[:-1]) == ({i: {5} for i in range(COUNT - 1)}, {}, False), "the broken one was begun anew"


def test_failures_of_masks_that_nobody_asked_for(grammars, device, led):
    device.finish_grammars()
    assert step(grammars, led)[1] == {}
    device.broken = 0
    lead(grammars, device, led, [3] * (COUNT - 1) + [5])
    allowed, errors, _ = step(grammars, led[:-1])
    assert not errors and allowed == {i: {4} for i in range(COUNT - 1)}


def test_a_late_row_begins_nothing(grammars, device, led):
    ready(grammars, device, led)
    grammars._batch._steps.late[0] = 1
    assert not lead(grammars, device, led, [3] * COUNT)
    assert step(grammars, led) == ({i: {4} for i in range(COUNT)}, {}, False)
