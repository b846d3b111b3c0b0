"""Guided sequences of one backend are stepped in one call, and each still fails alone."""

from __future__ import annotations

from typing import ClassVar

import pytest

from engine.plugin import Work
from engine.worker.guides import Grammars
from engine.worker.inputs import assemble
from engine.worker.sequences import SequenceTable
from tests.core.worker.languages import END, WIDTH, Ready, Words, sequence


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
    grammars = Grammars(Ready([1, 2, 3, 4], Together))
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
    grammars = Grammars(Ready([1, 2], Together))
    seqs = [sequence([1]), sequence([])]
    seqs[0].eos = seqs[1].eos = (END, 8)
    decode(grammars, seqs)
    seqs[0].extend([2], [])
    seqs[1].extend([1], [])
    assert decode(grammars, seqs) == ({0: {END, 8}, 1: {2}}, {}) and batches == [2]
    grammars.close()


def test_one_of_a_batch_that_leaves_its_grammar(batches):
    grammars = Grammars(Ready([1, 2, 3], Together))
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
    grammars = Grammars(Ready([1, 2, 3, 4], Together))
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
    grammars = Grammars(Ready([1, 2, 3, 4], Together))
    seq = sequence([1])
    assert decode(grammars, [seq], drafts=[2, 3]) == ({0: {2}, 1: {3}, 2: {4}}, {})
    seq.extend([2], [])
    assert decode(grammars, [seq]) == ({0: {3}}, {}) and batches == []
    seq.extend([3], [])
    assert decode(grammars, [seq]) == ({0: {4}}, {}) and batches == [1]
    grammars.close()


def test_masks_that_nobody_takes_are_not_those_of_the_next_step(batches):
    grammars = Grammars(Ready([1, 2, 3], Together))
    seq = sequence([1])
    table = SequenceTable(4, 64, 4)
    table._sequences[0] = seq
    grammars.begin(assemble(table, [Work(seq=0, start=2, count=1, blocks=[0, 1, 2, 3])]))
    seq.extend([2], [])
    assert decode(grammars, [seq]) == ({0: {3}}, {})
    grammars.close()
