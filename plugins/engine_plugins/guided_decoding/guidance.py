"""Grammars by llguidance: the most of JSON Schema, regular expressions, Lark and GBNF grammars, structural tags."""

from __future__ import annotations

import json
from typing import Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Tokenizer, UnsupportedConstraint, Vocabulary, hookimpl

from ._formats import spelled
from ._guidance import GuidanceGuide, reason
from ._rewrite import choice_regex, closed
from ._rules import GUIDANCE, unmet

ENGINE_API = 1
#: What the library says of features that it lacks, in whatever part of a schema or pattern they are.
_LACKS = ("Unimplemented", "Unknown format", "not supported", "lookarounds")
#: White space between the parts of a JSON text.
_WHITESPACE = r"[\x20\x0A\x0D\x09]{0,24}"
#: Estimated memory of a guide: the library does not tell.
_BYTES_PER_CHARACTER, _BYTES = 64, 65_536


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    return GuidanceCompiler(tokenizer, Vocabulary.of(tokenizer, vocab_size))


class GuidanceCompiler(GuideCompiler):
    """One tokenizer of the library per vocabulary."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        import llguidance

        self._library = llguidance
        self._words = -(-len(vocabulary.tokens) // 32)
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Encoder(tokenizer, vocabulary)), n_vocab=len(vocabulary.tokens), eos_token=vocabulary.end
        )
        self._limits = llguidance.LLParserLimits(verbose_errors=False)

    def unsupported(self, spec: GuideSpec) -> str | None:
        return unmet(spec, GUIDANCE)

    def compile(self, spec: GuideSpec) -> Guide:
        grammar = self._grammar(spec)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            text = reason(matcher.get_error())
            lacks = any(word in text for word in _LACKS)
            raise (UnsupportedConstraint if lacks else ValueError)(text)
        return GuidanceGuide(matcher, self._words, _BYTES + _BYTES_PER_CHARACTER * len(grammar))

    def _grammar(self, spec: GuideSpec) -> str:
        matcher, value = self._library.LLMatcher, spec.value
        grammar: str
        if spec.kind in ("json", "json_object"):
            schema = closed(spelled(value)) if spec.kind == "json" else {"type": "object"}
            grammar = matcher.grammar_from_json_schema(json.dumps(schema), overrides=self._layout(spec))
        elif spec.kind in ("regex", "choice"):
            grammar = matcher.grammar_from_regex(value if spec.kind == "regex" else choice_regex(value))
        elif spec.kind == "structural_tag":
            grammar = self._structural_tag(value)
        else:
            grammar = matcher.grammar_from_lark(self._lark(value))
        return grammar

    def _layout(self, spec: GuideSpec) -> Any:
        pattern = spec.options.get("whitespace_pattern")
        # Only schemas whose branches exclude each other get this far, and for those oneOf is anyOf.
        options: Any = {"coerce_one_of": True}
        if pattern is not None:
            return options | {"whitespace_pattern": pattern}
        if spec.options.get("any_whitespace") is False:
            return options | {"whitespace_flexible": False}
        return options | {"whitespace_pattern": _WHITESPACE}

    def _lark(self, text: str) -> str:
        if "::=" not in text:
            return text
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            return str(gbnf_to_lark(text))
        except Exception as error:
            # The converter raises errors of its own as plain exceptions.
            raise ValueError(f"the grammar cannot be read: {reason(str(error) or type(error).__name__)}") from error

    def _structural_tag(self, value: dict[str, Any]) -> str:
        if "format" in value:
            raise UnsupportedConstraint("structural tags with a format")
        tags = []
        for item in value["structures"]:
            trigger = next(trigger for trigger in value["triggers"] if item["begin"].startswith(trigger))
            tags.append(self._library.StructTag(trigger=trigger, begin=item["begin"], grammar=item["schema"], end=item["end"]))
        return str(self._library.StructTag.to_grammar(tags, assume_special=False))


class _Encoder:
    """A tokenizer as the library wants it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.end
        self.tokens = vocabulary.tokens
        self.special_token_ids = [i for i, token in enumerate(vocabulary.tokens) if not token]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(plain, add_special_tokens=False, allow_special=False)
