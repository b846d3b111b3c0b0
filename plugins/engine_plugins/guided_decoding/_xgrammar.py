"""xgrammar's matchers as the engine uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, Matcher

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[str], list[int]]
#: Characters of forced text that are worth proposing.
_LONGEST_FORCED = 2048


class XGrammarGuide(Guide):
    """A compiled grammar."""

    def __init__(self, library: Any, grammar: Any, encode: Encode, never: Collection[int] = ()) -> None:
        """``never``: tokens that must not come, whatever the grammar says."""
        self._library = library
        self._grammar = grammar
        self._encode = encode
        self._never = frozenset(never)

    def start(self) -> Matcher:
        matcher = self._library.GrammarMatcher(self._grammar)
        return PlainMatcher(matcher, self._encode, self._never) if self._never else XGrammarMatcher(matcher, self._encode)

    def nbytes(self) -> int:
        return int(self._grammar.memory_size_bytes)


class XGrammarMatcher(Matcher):
    """One sequence's matcher."""

    def __init__(self, matcher: Any, encode: Encode) -> None:
        self._matcher = matcher
        self._encode = encode
        self._looks_ahead = True

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        if not self._matcher.fill_next_token_bitmask(mask):
            mask.fill(-1)

    def advance(self, token_ids: Sequence[int]) -> bool:
        for taken, token in enumerate(token_ids):
            if not self._matcher.accept_token(token):
                if taken:
                    self._matcher.rollback(taken)
                return False
        return True

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)

    def finished(self) -> bool:
        # Nothing can follow where the only completion of the text is the empty one and the sentence is whole.
        return bool(self._matcher.is_terminated())

    def forced(self) -> Sequence[int]:
        if not self._looks_ahead:
            return ()
        try:
            text = self._matcher.find_jump_forward_string()
        except UnicodeDecodeError:
            # The last token, or what is forced, ends within a character: these bytes are no text that could be encoded.
            return ()
        if len(text) > _LONGEST_FORCED:
            # The library always looks to the end, which took its time; it would again after every token.
            self._looks_ahead = False
            text = text[:_LONGEST_FORCED]
        # The last token of the text might be the beginning of a longer one that also holds what follows.
        return self._encode(text)[:-1] if text else ()


class PlainMatcher(XGrammarMatcher):
    """A matcher without some tokens."""

    def __init__(self, matcher: Any, encode: Encode, never: frozenset[int]) -> None:
        super().__init__(matcher, encode)
        self._never = never

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        super().fill(mask)
        words = mask.view("uint32")
        for token in self._never:
            words[token >> 5] &= ~(1 << (token & 31)) & 0xFFFFFFFF

    def advance(self, token_ids: Sequence[int]) -> bool:
        return self._never.isdisjoint(token_ids) and super().advance(token_ids)
