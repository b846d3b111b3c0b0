"""Grammar states follow their sequences: forwards, backwards over rejected drafts, after a marker, to the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.plugin import NewSequence, SamplingParams, Work
from engine.worker.bits import forbid
from engine.worker.grammar_state import GrammarState
from engine.worker.guides import Grammars
from engine.worker.inputs import assemble
from engine.worker.masks import Masks
from engine.worker.sampler import Rows, Sampler
from engine.worker.sequences import Sequence, SequenceTable
from tests.core.worker.languages import END, WIDTH, Ready, Words, sequence


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
