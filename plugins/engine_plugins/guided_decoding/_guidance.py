"""llguidance's matchers as the engine uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, Matcher

if TYPE_CHECKING:
    import numpy as np


class GuidanceGuide(Guide):
    """A parsed grammar: a matcher that nobody uses, to copy."""

    def __init__(self, matcher: Any, words: int, nbytes: int) -> None:
        self._matcher = matcher
        self._words = words
        self._nbytes = nbytes

    def start(self) -> Matcher:
        return GuidanceMatcher(self._matcher.deep_copy(), self._words)

    def nbytes(self) -> int:
        return self._nbytes


class GuidanceMatcher(Matcher):
    """One sequence's matcher. The library reports errors by a state of their own, which is looked at after each step."""

    def __init__(self, matcher: Any, words: int) -> None:
        self._matcher = matcher
        self._words = words

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, 4 * self._words)
        self._check()

    def advance(self, token_ids: Sequence[int]) -> bool:
        tokens = list(token_ids)
        if self._matcher.validate_tokens(tokens) < len(tokens):
            return False
        return bool(self._matcher.consume_tokens(tokens))

    def rollback(self, count: int) -> None:
        if not self._matcher.rollback(count):
            self._check()

    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    def forced(self) -> Sequence[int]:
        return list(self._matcher.compute_ff_tokens())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ValueError(reason(self._matcher.get_error()))


def reason(text: str) -> str:
    """The message's first lines in one."""
    return " ".join(text.split())[:300].rstrip(".")
