"""One guided sequence's way through its grammar: where it begins, what it has seen, what is forced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.guided.trial import takes_any
from engine.plugin.contracts.generation import Matcher
from engine.worker.bits import allow
from engine.worker.sequences import Sequence

#: Most tokens that are proposed because the grammar forces them: every proposed token is a further row, which costs little only while
#: reading the weights is what a step takes.
MOST_FORCED = 8
#: Proposals of a sequence that may fail at their first token before it gets no more: the model spells forced texts in another way.
MOST_MISSES = 2
#: Most tokens of line breaks between the end of the thinking and the grammar's first token. Models put a blank line there.
LEAD = 2


class GrammarState:
    """Follows one sequence through its grammar; ``trail`` are the tokens since its beginning that the matcher has seen."""

    __slots__ = (
        "_after", "_begin", "_blanks", "_ended", "_ends", "_from", "_leading", "_misses", "_opens", "_proposed", "_sure", "_trail",
        "matcher", "more_ends",
    )  # fmt: skip

    def __init__(
        self, matcher: Matcher, sequence: Sequence, after: tuple[int, ...], opens: tuple[int, ...] = (), blanks: tuple[int, ...] = ()
    ) -> None:
        """``after``, ``opens``: where the grammar begins, as :class:`GuideSpec` has it. ``blanks``: the tokens of line breaks, of which
        a few may lie between the thinking and the grammar, unless it takes them itself."""
        self.matcher = matcher
        #: Whether the request ends its output by other tokens than the grammar's end, too.
        self.more_ends = False
        self._blanks = blanks if after and not takes_any(matcher, blanks) else ()
        #: Whether another blank may come here.
        self._leading = False
        self._misses = 0
        self._proposed: list[int] = []
        self._opens = opens
        self._after = after
        self._ends = frozenset(sequence.eos)
        self._begin: int | None = sequence.num_prompt if not after else None
        self._trail: list[int] = []
        #: Where the trail begins, and how many of its tokens the sequence is sure to keep: they are never looked at again.
        self._from = sequence.num_prompt
        self._sure = 0
        #: Place in the trail of the first end token, where the matcher stopped to follow.
        self._ended: int | None = None

    def next_token(self, sequence: Sequence, length: int) -> int | None:
        """The one token that the matcher has to advance by to be at ``length``, if that is all; else None, and :meth:`seek` is needed."""
        place = len(self._trail)
        if (
            self._ended is not None or length != sequence.length or self._from + place + 1 != length or self._sure != place
            or (self._after and not place) or sequence.last in self._ends
        ):  # fmt: skip
            return None
        return sequence.last

    def catch_up(self, sequence: Sequence, length: int) -> int | None:
        """:meth:`next_token`, after a few tokens that came together, or drafts that did not come, were made up for."""
        token = self.next_token(sequence, length)
        behind = length - self._from - len(self._trail)
        if token is not None or self._after or self._ended is not None or length <= sequence.num_prompt or behind > MOST_FORCED + 1:
            return token
        return self.next_token(sequence, length) if self.seek(sequence, length - 1) else None

    def advanced(self, tokens: list[int]) -> None:
        """The matcher has advanced by what :meth:`next_token` said, and by what came after."""
        self._trail += tokens
        self._sure += len(tokens)

    def seek(self, sequence: Sequence, length: int) -> bool | None:
        """Bring the matcher to the first ``length`` tokens, forwards or backwards. None: the grammar has not begun there.
        False: they are no beginning of a sentence."""
        begin = self._start(sequence, length)
        if begin is None:
            self._retreat(0)
            return None
        self._from = begin
        sure = min(self._sure, length - begin)
        wanted: list[int] = sequence.tokens[begin + sure : length].tolist()
        trail = self._trail
        if trail[sure:] != wanted[: len(trail) - sure]:
            pairs = enumerate(zip(trail[sure:], wanted, strict=False))
            self._retreat(sure + next((i for i, (a, b) in pairs if a != b), len(wanted)))
        follows = all(self._step(token) for token in wanted[len(self._trail) - sure :])
        self._sure = max(0, min(len(self._trail), sequence.length - begin))
        return follows

    @property
    def ended(self) -> bool:
        """Whether an end token has come."""
        return self._ended is not None

    def fill(self, mask: NDArray[np.int32]) -> None:
        """The tokens that may come now; the mask is zeroed before."""
        self.matcher.fill(mask)
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
        self._proposed = list(self.matcher.forced()[:MOST_FORCED])
        return list(self._proposed)

    def _start(self, sequence: Sequence, length: int) -> int | None:
        """Where the grammar begins: with the output, or after the first occurrence of its marker in it and the blanks after that."""
        self._leading = False
        if not self._after:
            return self._begin
        if self._sure and length >= self._from + self._sure:
            return self._from
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
            elif not self.matcher.advance([token]):
                return False
        self._trail.append(token)
        return True

    def _retreat(self, length: int) -> None:
        """Undo the trail beyond its first ``length`` tokens."""
        followed = len(self._trail) if self._ended is None else self._ended
        if followed > length:
            self.matcher.rollback(followed - length)
        if self._ended is not None and self._ended >= length:
            self._ended = None
        self._sure = min(self._sure, length)
        del self._trail[length:]
