"""Grammars of one list of tokens, and sequences that follow them."""

from __future__ import annotations

from engine.plugin import Guide, GuideSpec, Matcher, NewSequence, SamplingParams
from engine.worker.sequences import Sequence

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
    """A store whose guides are there, each begun by a ``matcher`` of the words."""

    width, end = WIDTH, END

    def __init__(self, words, matcher=Words):
        self.words, self.matcher = words, matcher

    def get(self, spec):
        words, matcher = self.words, self.matcher

        class Done(Guide):
            def start(self):
                return matcher(words)

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
