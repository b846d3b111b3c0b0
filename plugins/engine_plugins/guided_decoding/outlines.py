"""Automata by outlines_core: JSON schemas, regular expressions and choices, compiled for the whole vocabulary beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Matcher, Tokenizer, UnsupportedConstraint, Vocabulary, hookimpl

from ._formats import spelled
from ._rewrite import choice_regex
from ._rules import OUTLINES, unmet

if TYPE_CHECKING:
    import numpy as np

ENGINE_API = 1
#: Between the parts of a JSON text where the request does not say.
_WHITESPACE = r"[ \n\t]{0,4}"
#: How deep references may lead back; the automaton has no stack, so they are written out.
_RECURSION = 3
#: Tokens that can be taken back.
_ROLLBACK = 64
#: Estimated bytes of one transition.
_TRANSITION = 24


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    return OutlinesCompiler(Vocabulary.of(tokenizer, vocab_size))


class OutlinesCompiler(GuideCompiler):
    """Regular languages over one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import outlines_core

        self._library = outlines_core
        ids: dict[bytes, list[int]] = {}
        for token_id, token in enumerate(vocabulary.tokens):
            if token:
                ids.setdefault(token, []).append(token_id)
        self._vocabulary = outlines_core.Vocabulary(vocabulary.end, ids)
        self._words = -(-len(vocabulary.tokens) // 32)

    def unsupported(self, spec: GuideSpec) -> str | None:
        return unmet(spec, OUTLINES)

    def compile(self, spec: GuideSpec) -> Guide:
        try:
            index = self._library.Index(self._regex(spec), self._vocabulary)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            lacks = "DFA" in reason or "nsupported" in reason or "not supported" in reason
            raise (UnsupportedConstraint if lacks else ValueError)(reason) from error
        return OutlinesGuide(self._library, index, self._words)

    def _regex(self, spec: GuideSpec) -> str:
        if spec.kind == "choice":
            return choice_regex(spec.value)
        if spec.kind == "regex":
            return str(spec.value)
        pattern = spec.options.get("whitespace_pattern")
        if pattern is None:
            pattern = "" if spec.options.get("any_whitespace") is False else _WHITESPACE
        return str(self._library.json_schema.build_regex_from_schema(json.dumps(spelled(spec.value)), pattern, _RECURSION))


class OutlinesGuide(Guide):
    """An automaton over tokens."""

    def __init__(self, library: Any, index: Any, words: int) -> None:
        self._library = library
        self._index = index
        self._words = words

    def start(self) -> Matcher:
        return OutlinesMatcher(self._library.Guide(self._index, _ROLLBACK), self._words)

    def nbytes(self) -> int:
        return _TRANSITION * sum(map(len, self._index.get_transitions().values()))


class OutlinesMatcher(Matcher):
    """One sequence's state."""

    def __init__(self, guide: Any, words: int) -> None:
        self._guide = guide
        self._words = words

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        self._guide.write_mask_into(mask.ctypes.data, self._words, 4)

    def advance(self, token_ids: Sequence[int]) -> bool:
        if not self._guide.accepts_tokens(list(token_ids)):
            return False
        for token in token_ids:
            self._guide.advance(token, False)
        return True

    def rollback(self, count: int) -> None:
        self._guide.rollback_state(count)

    def finished(self) -> bool:
        return bool(self._guide.is_finished()) and len(self._guide.get_tokens()) == 1
