"""Grammar states follow their sequences: forwards, backwards over rejected drafts, after a marker, to the end."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from engine.plugin import Guide, GuideSpec, Matcher, NewSequence, SamplingParams, Work
from engine.worker.bits import forbid
from engine.worker.grammar_state import GrammarState
from engine.worker.guides import Grammars
from engine.worker.inputs import assemble
from engine.worker.masks import Masks
from engine.worker.sampler import Rows, Sampler
from engine.worker.sequences import Sequence, SequenceTable

END = 9
WIDTH = 10


class Words(Matcher):
    """The language of one list of tokens, then the end."""

    def __init__(self, words):
        self.words, self.place, self.undone = words, 0, 0

    def fill(self, mask):
        token = self.words[self.place] if self.place < len(self.words) else END
        if token is not None:
            mask[0] |= 1 << token

    def advance(self, token_ids):
        wanted = self.words[self.place : self.place + len(token_ids)]
        if list(token_ids) != wanted:
            return False
        self.place += len(token_ids)
        return True

    def rollback(self, count):
        self.place -= count
        self.undone += count

    def finished(self):
        return self.place == len(self.words)


class Ready:
    """A store whose guides are there."""

    width, end = WIDTH, END

    def __init__(self, words):
        self.words = words

    def get(self, spec):
        words = self.words

        class Done(Guide):
            def start(self):
                return Words(words)

            def nbytes(self):
                return 0

        class Answer:
            def result(self, timeout=None):
                return Done()

            def done(self):
                return True

        return Answer()

    def close(self):
        pass


def sequence(output, after=(), **changes):
    params = SamplingParams(guide=GuideSpec("regex", "x", start_after=after), temperature=0.0, **changes)
    new = NewSequence(seq=0, token_ids=[7, 7, *output], num_prompt=2, params=params, eos_token_ids=(END,))
    return Sequence(new, 0)


def test_follows_forwards_and_backwards():
    seq = sequence([1, 2])
    matcher = Words([1, 2, 3, 4])
    state = GrammarState(matcher, seq, ())
    assert state.seek(seq, 4) is True and matcher.place == 2
    seq.extend([], [3, 4])
    assert state.seek(seq, 6) is True and matcher.place == 4
    seq.extend([3], [5])  # the second draft was rejected
    assert state.seek(seq, 5) is True and matcher.place == 3
    assert state.seek(seq, 6) is False and matcher.place == 3


def test_a_grammar_that_starts_after_a_marker():
    seq = sequence([1, 5, 6, 1], after=(5, 6))
    matcher = Words([1, 2])
    state = GrammarState(matcher, seq, (5, 6))
    assert state.seek(seq, 4) is None
    assert state.seek(seq, 5) is None or seq.tokens[4] == 6
    assert state.seek(seq, 6) is True and matcher.place == 1
    assert state.seek(seq, 3) is None and matcher.place == 0


def test_the_marker_may_be_a_rejected_draft():
    seq = sequence([1], after=(5,))
    state = GrammarState(Words([1, 2]), seq, (5,))
    seq.extend([], [5, 1])
    assert state.seek(seq, 5) is True
    seq.extend([4], [])
    assert state.seek(seq, 4) is None


def fills(state):
    mask = np.zeros(1, np.int32)
    state.fill(mask)
    return {token for token in range(WIDTH) if mask[0] >> token & 1}


def test_line_breaks_may_come_between_the_thinking_and_the_grammar():
    blank, more = 3, 4
    seq = sequence([1, 5], after=(5,))
    matcher = Words([1, 2])
    state = GrammarState(matcher, seq, (5,), blanks=(blank, more))
    assert state.seek(seq, 4) is True and fills(state) == {1, blank, more}
    seq.extend([blank], [])
    assert state.seek(seq, 5) is True and fills(state) == {1, blank, more}
    seq.extend([blank], [])
    assert state.seek(seq, 6) is True and fills(state) == {1}, "only so many"
    seq.extend([1], [])
    assert state.seek(seq, 7) is True and matcher.place == 1 and fills(state) == {2}
    assert state.seek(seq, 5) is True and matcher.place == 0 and fills(state) == {1, blank, more}


def test_no_line_breaks_without_thinking_or_where_the_grammar_takes_them():
    seq = sequence([])
    state = GrammarState(Words([1]), seq, (), blanks=(3,))
    assert state.seek(seq, 2) is True and fills(state) == {1}
    state = GrammarState(Words([1]), sequence([], after=(5,)), (5,), (6,), blanks=(3,))
    assert state.seek(seq, 2) is True and fills(state) == {1}, "an answer that did not begin to think"
    seq = sequence([5, 3], after=(5,))
    matcher = Words([3, 1])
    state = GrammarState(matcher, seq, (5,), blanks=(3,))
    assert state.seek(seq, 4) is True and matcher.place == 1 and fills(state) == {1}


def test_after_the_end_only_the_end():
    seq = sequence([1, END, END], ignore_eos=True)
    state = GrammarState(Words([1]), seq, ())
    assert state.seek(seq, 5) is True and state.ended
    assert state.seek(seq, 3) is True and not state.ended


def run(words, seqs, drafts=()):
    """One sampling step over the sequences; the model would like token 0 best."""
    grammars = Grammars(Ready(words))
    table = SequenceTable(4, 64, 4)
    work = []
    for i, seq in enumerate(seqs):
        table._sequences[i] = seq
        draft = list(drafts) if i == 0 else []
        work.append(Work(seq=i, start=seq.length - 1, count=1 + len(draft), draft=draft, blocks=[0, 1, 2, 3]))
    inputs = assemble(table, work)
    grammars.begin(inputs)
    logits = torch.zeros(len(inputs.sample_rows), WIDTH)
    logits[:, 0] = 5.0
    owners = [inputs.sequences[i] for i in inputs.sample_owner.tolist()]
    got = Sampler(Masks(lambda name: None, grammars)).sample(logits, Rows(owners, inputs.sample_length))
    grammars.close()
    assert (logits[:, 0] == 5.0).all()
    return got


def test_guided_rows_beside_others():
    free = NewSequence(seq=1, token_ids=[7, 7, 3], num_prompt=2, params=SamplingParams(temperature=0.0), eos_token_ids=(END,))
    got = run([1, 2, 3], [sequence([1]), Sequence(free, 1), sequence([1, 2, 3])])
    assert got.tokens.tolist() == [2, 0, END] and not got.errors


def test_drafts_are_masked_one_after_the_other():
    got = run([1, 2, 3, 4], [sequence([1])], drafts=[2, 3])
    assert got.tokens.tolist() == [2, 3, 4]
    got = run([1, 2, 3, 4], [sequence([1])], drafts=[2, 8])
    assert got.tokens.tolist()[:2] == [2, 3] and not got.errors.keys() & {0, 1}


def test_a_dead_end_is_the_sequence_s_own():
    got = run([1, None], [sequence([1]), sequence([])])
    assert list(got.errors) == [0] and "no token" in got.errors[0]
    assert got.tokens.tolist()[1] == 1


def test_output_outside_the_grammar_is_an_error():
    got = run([1, 2], [sequence([4])])
    assert "outside the grammar" in got.errors[0]


def test_after_the_grammar_the_first_end_is_taken():
    got = run([1], [sequence([1, END, END], ignore_eos=True)])
    assert got.tokens.tolist() == [END]


class Forcing(Words):
    """Says what follows."""

    def forced(self):
        return self.words[self.place :]


def test_forced_tokens_are_proposed_while_they_are_taken():
    seq = sequence([1])
    state = GrammarState(Forcing([1, 2, 3, 4]), seq, ())
    assert state.foresee(seq, [2]) == [3, 4]
    seq.extend([2], [3, 4])
    assert state.seek(seq, 4) is True and state.seek(seq, 6) is True
    assert state.foresee(seq, [3, 4]) == [], "the end is no forced token"
    seq.extend([3, 4], [])
    assert state.seek(seq, 6) is True and state.foresee(seq, [END]) == []


def test_what_the_model_spells_otherwise_is_soon_not_proposed():
    long = [*range(1, 8)] * 4
    seq = sequence([])
    matcher = Forcing(long)
    matcher.forced = lambda: [8, 8]
    state = GrammarState(matcher, seq, ())
    given = []
    for place in range(12):
        given.append(bool(state.foresee(seq, [long[place]])))
        seq.extend([long[place]], [])
    assert given == [True] * 3 + [False] * 9
    thinking = sequence([1], after=(5,))
    assert GrammarState(Forcing([1, 2]), thinking, (5,)).foresee(thinking, [2]) == []


@pytest.mark.parametrize("rows", [[0, 1, 2], [1]])
@pytest.mark.parametrize("width", [64, 61, 97])
def test_forbid(rows, width):
    chance = np.random.default_rng(0)
    allowed = chance.random((len(rows), width)) < 0.3
    padded = np.zeros((len(rows), -(-width // 32) * 32), np.uint8)
    padded[:, :width] = allowed
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.int32)
    scores = torch.randn(3, width)
    before = scores.clone()
    forbid(scores, np.array(rows), bits)
    for place, row in enumerate(rows):
        assert torch.equal(torch.isinf(scores[row]), torch.from_numpy(~allowed[place]))
        assert torch.equal(scores[row][allowed[place]], before[row][allowed[place]])
    for row in set(range(3)) - set(rows):
        assert torch.equal(scores[row], before[row])


class Together(Words):
    """Steps several at once; ``asked`` are the sizes of the batches."""

    asked: ClassVar[list[int]] = []
    fault = ""

    @classmethod
    def step(cls, matchers, token_ids, masks, rows):
        cls.asked.append(len(matchers))
        if cls.fault:
            matchers[0].place += 1  # what a failing library leaves behind
            raise RuntimeError(cls.fault)
        refused = []
        for place, (matcher, token, row) in enumerate(zip(matchers, token_ids, rows, strict=True)):
            if matcher.advance([token]):
                matcher.fill(masks[row])
            else:
                refused.append(place)
        return refused


class Many(Ready):
    """Guides of :class:`Together`."""

    def get(self, spec):
        words = self.words

        class Done(Guide):
            def start(self):
                return Together(words)

            def nbytes(self):
                return 0

        class Answer:
            def result(self, timeout=None):
                return Done()

            def done(self):
                return True

        return Answer()


@pytest.fixture
def batches():
    Together.asked, Together.fault = [], ""
    return Together.asked


def decode(grammars, seqs, drafts=()):
    """One step over the sequences by the given grammars: the allowed tokens of each row, and the errors."""
    table = SequenceTable(4, 64, 4)
    work = []
    for i, seq in enumerate(seqs):
        table._sequences[i] = seq
        draft = list(drafts) if i == 0 else []
        work.append(Work(seq=i, start=seq.length - 1, count=1 + len(draft), draft=draft, blocks=list(range(16))))
    grammars.begin(assemble(table, work))
    masks = grammars.take()
    return {int(row): {t for t in range(WIDTH) if bits[0] >> t & 1} for row, bits in zip(masks.rows, masks.bits, strict=True)}, masks.errors


def test_sequences_that_went_on_by_a_token_are_stepped_together(batches):
    grammars = Grammars(Many([1, 2, 3, 4]))
    seqs = [sequence([]), sequence([1]), sequence([1, 2])]
    assert decode(grammars, seqs) == ({0: {1}, 1: {2}, 2: {3}}, {}) and batches == []
    for seq, token in zip(seqs, [1, 2, 3], strict=True):
        seq.extend([token], [])
    assert decode(grammars, seqs) == ({0: {2}, 1: {3}, 2: {4}}, {}) and batches == [3]
    for seq, token in zip(seqs, [2, 3, 4], strict=True):
        seq.extend([token], [])
    assert decode(grammars, seqs, drafts=[3, 4]) == ({0: {3}, 1: {4}, 2: {END}, 3: {4}, 4: {END}}, {})
    assert batches == [3, 3]
    seqs[0].extend([3], [])
    seqs[1].extend([4], [])
    seqs[2].extend([END], [])
    assert decode(grammars, seqs) == ({0: {4}, 1: {END}, 2: {END}}, {})
    grammars.close()


def test_all_ends_of_a_request_where_the_grammar_allows_one(batches):
    grammars = Grammars(Many([1, 2]))
    seqs = [sequence([1]), sequence([])]
    seqs[0].eos = seqs[1].eos = (END, 8)
    decode(grammars, seqs)
    seqs[0].extend([2], [])
    seqs[1].extend([1], [])
    assert decode(grammars, seqs) == ({0: {END, 8}, 1: {2}}, {}) and batches == [2]
    grammars.close()


def test_one_of_a_batch_that_leaves_its_grammar(batches):
    grammars = Grammars(Many([1, 2, 3]))
    seqs = [sequence([1]), sequence([1]), sequence([])]
    decode(grammars, seqs)
    for seq, token in zip(seqs, [2, 7, 1], strict=True):
        seq.extend([token], [])
    allowed, errors = decode(grammars, seqs)
    assert allowed == {0: {3}, 2: {2}} and list(errors) == [1] and "outside the grammar" in errors[1]
    seqs[0].extend([3], [])
    seqs[2].extend([2], [])
    assert decode(grammars, [seqs[0], seqs[2]]) == ({0: {END}, 1: {3}}, {})
    grammars.close()


def test_a_batch_that_fails_is_done_one_by_one_from_the_beginning(batches):
    grammars = Grammars(Many([1, 2, 3, 4]))
    seqs = [sequence([1]), sequence([1, 2])]
    decode(grammars, seqs)
    seqs[0].extend([2], [])
    seqs[1].extend([3], [])
    Together.fault = "out of order"
    assert decode(grammars, seqs) == ({0: {3}, 1: {4}}, {}) and batches == [2]
    Together.fault = ""
    seqs[0].extend([3], [])
    seqs[1].extend([4], [])
    assert decode(grammars, seqs) == ({0: {4}, 1: {END}}, {})
    grammars.close()


def test_a_batch_after_a_rejected_draft(batches):
    grammars = Grammars(Many([1, 2, 3, 4]))
    seq = sequence([1])
    assert decode(grammars, [seq], drafts=[2, 3]) == ({0: {2}, 1: {3}, 2: {4}}, {})
    seq.extend([2], [])
    assert decode(grammars, [seq]) == ({0: {3}}, {}) and batches == []
    seq.extend([3], [])
    assert decode(grammars, [seq]) == ({0: {4}}, {}) and batches == [1]
    grammars.close()


def test_masks_that_nobody_takes_are_not_those_of_the_next_step(batches):
    grammars = Grammars(Many([1, 2, 3]))
    seq = sequence([1])
    table = SequenceTable(4, 64, 4)
    table._sequences[0] = seq
    grammars.begin(assemble(table, [Work(seq=0, start=2, count=1, blocks=[0, 1, 2, 3])]))
    seq.extend([2], [])
    assert decode(grammars, [seq]) == ({0: {3}}, {})
    grammars.close()
