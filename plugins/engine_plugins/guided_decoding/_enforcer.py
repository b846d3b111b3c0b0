"""lm-format-enforcer's parsers as the engine uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, Matcher, UnsupportedConstraint

if TYPE_CHECKING:
    import numpy as np

#: Estimated memory of a guide: the library does not tell.
_BYTES = 262_144


class EnforcerGuide(Guide):
    """A constraint that is parsed again for each sequence."""

    def __init__(self, enforcer: Callable[[], Any]) -> None:
        """``enforcer`` makes the library's object: one per sequence, because parsers share what they are parsing."""
        self._enforcer = enforcer

    def start(self) -> Matcher:
        return EnforcerMatcher(self._enforcer())

    def nbytes(self) -> int:
        return _BYTES


class EnforcerMatcher(Matcher):
    """One sequence's parsers, one per token so that they can be taken back.

    The library's own stepping keeps every state of every sequence, and ends a text early where something goes wrong.
    """

    def __init__(self, enforcer: Any) -> None:
        self._enforcer = enforcer
        self._states: list[tuple[Any, list[int] | None]] = [(enforcer.root_parser, None)]

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        import numpy as np

        allowed = np.array(self._allowed(), np.int64)
        np.bitwise_or.at(mask.view(np.uint32), allowed >> 5, np.uint32(1) << (allowed & 31).astype(np.uint32))

    def advance(self, token_ids: Sequence[int]) -> bool:
        for taken, token in enumerate(token_ids):
            if token not in self._allowed():
                self.rollback(taken)
                return False
            parser = self._states[-1][0]
            for character in self._enforcer.tokenizer_tree.tokens_to_strs[token]:
                parser = parser.add_character(character)
            self._states.append((parser, None))
        return True

    def rollback(self, count: int) -> None:
        if count:
            del self._states[-count:]

    def finished(self) -> bool:
        return self._allowed() == [self._enforcer.eos_token_id]

    def _allowed(self) -> list[int]:
        parser, found = self._states[-1]
        if found is None:
            from lmformatenforcer.exceptions import LMFormatEnforcerException
            from lmformatenforcer.tokenlist import TokenList

            tokens = TokenList(False, self._enforcer.vocab_size)
            try:
                self._enforcer._collect_allowed_tokens(parser, self._enforcer.tokenizer_tree.root, tokens, parser.shortcut_key())
            except (KeyError, IndexError, AttributeError, TypeError, LMFormatEnforcerException) as error:
                raise UnsupportedConstraint(f"a part of it that the library cannot parse ({type(error).__name__}: {error})") from error
            found = list(tokens.allowed_tokens)
            if parser.can_end():
                found.append(self._enforcer.eos_token_id)
            self._states[-1] = (parser, found)
        return found
