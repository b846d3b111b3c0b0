"""xgrammar's matchers as the engine uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, Matcher, Stepper

from ._xgrammar_calls import CallStepper, Entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Encode = Callable[[str], list[int]]
#: Characters of forced text that are worth proposing.
_LONGEST_FORCED = 2048


class Library:
    """What matchers need of the library, looked up once. ``accept`` and ``fill`` step many of its own objects in one call each, on the
    caller's thread and without the interpreter's lock; its public functions do the same, but hand the answers over one by one."""

    def __init__(self, library: Any) -> None:
        self.matcher = library.GrammarMatcher
        self.accept = library.tvm_ffi_binding.BatchGrammarMatcher.batch_accept_token
        self._batch = library.BatchGrammarMatcher(max_threads=1)
        self.fill = self._batch._handle.batch_fill_next_token_bitmask
        self.entry = Entry.find(library.tvm_ffi_binding.GrammarMatcher)


class XGrammarGuide(Guide):
    """A compiled grammar."""

    def __init__(self, library: Library, grammar: Any, encode: Encode, never: Collection[int] = (), words: int = 0) -> None:
        """``never``: tokens that must not come, whatever the grammar says, in masks of so many ``words``."""
        self._library = library
        self._grammar = grammar
        self._encode = encode
        self._never = frozenset(never)
        self._words = words

    @cached_property
    def _kept(self) -> NDArray[np.int32]:
        """The mask of all tokens but those."""
        import numpy

        kept = numpy.full(self._words, 0xFFFFFFFF, numpy.uint32)
        for token in self._never:
            kept[token >> 5] &= ~(1 << (token & 31)) & 0xFFFFFFFF
        return kept.view(numpy.int32)

    def start(self) -> Matcher:
        matcher = self._library.matcher(self._grammar)
        if self._never:
            return PlainMatcher(matcher, self._encode, self._library, self._never, self._kept)
        return XGrammarMatcher(matcher, self._encode, self._library)

    def nbytes(self) -> int:
        return int(self._grammar.memory_size_bytes)


class XGrammarMatcher(Matcher):
    """One sequence's matcher."""

    def __init__(self, matcher: Any, encode: Encode, library: Library) -> None:
        self._matcher = matcher
        self._handle = matcher._handle
        self._encode = encode
        self._library = library
        self._looks_ahead = True

    def fill(self, mask: NDArray[np.int32]) -> None:
        if not self._matcher.fill_next_token_bitmask(mask):
            mask.fill(-1)

    def advance(self, token_ids: Sequence[int]) -> bool:
        for taken, token in enumerate(token_ids):
            if not self._matcher.accept_token(token):
                if taken:
                    self._matcher.rollback(taken)
                return False
        return True

    @classmethod
    def step(
        cls, matchers: Sequence[Matcher], token_ids: Sequence[int], masks: NDArray[np.int32], rows: Sequence[int]
    ) -> Sequence[int] | None:
        library, own = _opened(matchers)
        taken = library.accept(own, token_ids, False)
        # A whole mask is written also where it allows everything.
        library.fill(own, masks, rows, False)
        return [place for place, took in enumerate(taken) if not took] if 0 in taken else ()

    @classmethod
    def stepper(cls, matchers: Sequence[Matcher], masks: NDArray[np.int32]) -> Stepper | None:
        own = [matcher for matcher in matchers if isinstance(matcher, XGrammarMatcher)]
        entry = own[0]._library.entry
        if entry is None or len(own) < len(matchers):
            return None
        plain = [matcher if isinstance(matcher, PlainMatcher) else None for matcher in own]
        apart = frozenset[int]().union(*(matcher._never for matcher in plain if matcher is not None))
        kept = [None if matcher is None else matcher._kept for matcher in plain]
        return CallStepper(entry, [matcher._handle for matcher in own], masks, kept, apart)

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
            # Forced bytes that begin or end within a character: the library hands them over as text or not at all.
            return ()
        if len(text) > _LONGEST_FORCED:
            # The library always looks to the end, which took its time; it would again after every token.
            self._looks_ahead = False
            text = text[:_LONGEST_FORCED]
        # The last token of the text might be the beginning of a longer one that also holds what follows.
        return self._encode(text)[:-1] if text else ()


class PlainMatcher(XGrammarMatcher):
    """A matcher without some tokens."""

    def __init__(
        self, matcher: Any, encode: Encode, library: Library, never: frozenset[int], kept: NDArray[np.int32]
    ) -> None:
        super().__init__(matcher, encode, library)
        self._never = never
        self._kept = kept

    def fill(self, mask: NDArray[np.int32]) -> None:
        super().fill(mask)
        mask &= self._kept

    def advance(self, token_ids: Sequence[int]) -> bool:
        return self._never.isdisjoint(token_ids) and super().advance(token_ids)

    @classmethod
    def step(
        cls, matchers: Sequence[Matcher], token_ids: Sequence[int], masks: NDArray[np.int32], rows: Sequence[int]
    ) -> Sequence[int] | None:
        first = matchers[0]
        if not isinstance(first, PlainMatcher) or not first._never.isdisjoint(token_ids):
            return None
        refused = super().step(matchers, token_ids, masks, rows)
        masks[rows] &= first._kept
        return refused


def _opened(matchers: Sequence[Matcher]) -> tuple[Library, list[Any]]:
    """What the matchers have of the library, and the library's own objects."""
    own = [matcher for matcher in matchers if isinstance(matcher, XGrammarMatcher)]
    return own[0]._library, [matcher._handle for matcher in own]
