"""Grammars by xgrammar: JSON schemas, regular expressions, GBNF and Lark grammars, structural tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Matcher, Tokenizer, UnsupportedConstraint, Vocabulary, hookimpl

from ._formats import spelled
from ._rewrite import bounded, choice_grammar
from ._rules import XGRAMMAR, unmet

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[str], list[int]]
ENGINE_API = 1
#: Longest run of white space between the parts of a JSON text: models that may write more sometimes never stop.
MAX_WHITESPACE = 24


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, allow_special=False)

    return XGrammarCompiler(Vocabulary.of(tokenizer, vocab_size), encode)


class XGrammarCompiler(GuideCompiler):
    """One compiler per vocabulary; its own cache is off, the host has one."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode) -> None:
        """``encode``: the token ids of a text, as a model would write it."""
        import xgrammar

        self._library = xgrammar
        self._encode = encode
        info = xgrammar.TokenizerInfo(
            vocabulary.tokens, xgrammar.VocabType.RAW, vocab_size=len(vocabulary.tokens), stop_token_ids=[vocabulary.end]
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def unsupported(self, spec: GuideSpec) -> str | None:
        if spec.options.get("whitespace_pattern") is not None:
            return "guided_whitespace_pattern"
        return unmet(spec, XGRAMMAR)

    def compile(self, spec: GuideSpec) -> Guide:
        try:
            return XGrammarGuide(self._library, self._compile(spec), self._encode)
        except (RuntimeError, TypeError) as error:
            reason = _reason(error)
            raise (UnsupportedConstraint if "not support" in reason else ValueError)(reason) from error

    def _compile(self, spec: GuideSpec) -> Any:
        compiler = self._compiler
        if spec.kind in ("json", "json_object"):
            schema = json.dumps(bounded(spelled(spec.value)) if spec.kind == "json" else {"type": "object"})
            compact = spec.options.get("any_whitespace") is False
            # strict_mode closes objects and arrays that do not say whether they are open, against the specification's default,
            # but as every model provider does: an open object never ends for a small model.
            if compact:
                return compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"), strict_mode=True)
            return compiler.compile_json_schema(schema, any_whitespace=True, max_whitespace_cnt=MAX_WHITESPACE, strict_mode=True)
        if spec.kind == "regex":
            return compiler.compile_regex(spec.value)
        if spec.kind == "choice":
            return compiler.compile_grammar(choice_grammar(spec.value))
        if spec.kind == "structural_tag":
            return self._structural_tag(spec.value)
        if _is_gbnf(spec.value):
            return compiler.compile_grammar(spec.value)
        return compiler.compile_lark(spec.value)

    def _structural_tag(self, value: dict[str, Any]) -> Any:
        if "format" in value:
            return self._compiler.compile_structural_tag(json.dumps(value))
        items = [
            self._library.StructuralTagItem(begin=item["begin"], schema=json.dumps(item["schema"]), end=item["end"])
            for item in value["structures"]
        ]
        return self._compiler.compile_structural_tag(items, value["triggers"])


class XGrammarGuide(Guide):
    """A compiled grammar."""

    def __init__(self, library: Any, grammar: Any, encode: Encode) -> None:
        self._library = library
        self._grammar = grammar
        self._encode = encode

    def start(self) -> Matcher:
        return XGrammarMatcher(self._library.GrammarMatcher(self._grammar), self._encode)

    def nbytes(self) -> int:
        return int(self._grammar.memory_size_bytes)


class XGrammarMatcher(Matcher):
    """One sequence's matcher."""

    def __init__(self, matcher: Any, encode: Encode) -> None:
        self._matcher = matcher
        self._encode = encode

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
        text = self._matcher.find_jump_forward_string()
        # The last token of the text might be the beginning of a longer one that also holds what follows.
        return self._encode(text)[:-1] if text else ()


def _is_gbnf(grammar: str) -> bool:
    return "::=" in grammar


def _reason(error: Exception) -> str:
    """The library's message without the place in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.startswith("[") and "] " in text:
        text = text.split("] ", 1)[1]
        text = text.split(": ", 1)[1] if ".cc:" in text.split(": ", 1)[0] else text
    return text.rstrip(".")
