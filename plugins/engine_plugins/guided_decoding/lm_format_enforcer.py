"""Character-level parsers by lm-format-enforcer: JSON schemas, regular expressions and choices, ready at once."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Tokenizer, Vocabulary, hookimpl

from ._enforcer import EnforcerGuide
from ._rewrite import choice_regex
from ._rules import ENFORCER, unmet

ENGINE_API = 1
#: Longest run of spaces between the parts of a JSON text.
_WHITESPACE = 24


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    import lmformatenforcer  # noqa: F401 - its absence is to be known now, not with the first constraint

    return EnforcerCompiler(tokenizer, Vocabulary.of(tokenizer, vocab_size))


class EnforcerCompiler(GuideCompiler):
    """The library's trees of the vocabulary, shared by all constraints. Tokens that are no whole characters are left out of them."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._decode, self._end, self._width = tokenizer.decode, vocabulary.end, len(vocabulary.tokens)
        texts = [(i, _text(token)) for i, token in enumerate(vocabulary.tokens) if token]
        self._texts = [(i, text) for i, text in texts if text is not None]

    @cached_property
    def _plain(self) -> Any:
        return self._tree(self._texts)

    @cached_property
    def _json(self) -> Any:
        # The library's strings may hold control characters, which JSON forbids; between the parts a space is white space enough.
        return self._tree([(i, text) for i, text in self._texts if text.isprintable() or all(c >= " " for c in text)])

    def _tree(self, texts: list[tuple[int, str]]) -> Any:
        from lmformatenforcer import TokenEnforcerTokenizerData

        # Every token counts as the beginning of a word: its text is known, nothing has to be decoded together.
        return TokenEnforcerTokenizerData([(i, text, True) for i, text in texts], self._decode, self._end, False, self._width)

    def unsupported(self, spec: GuideSpec) -> str | None:
        if spec.options.get("whitespace_pattern") is not None:
            return "guided_whitespace_pattern"
        lacks = unmet(spec, ENFORCER)
        if lacks is None:
            compact = (",", ":")
            stated = json.dumps(spec.value, ensure_ascii=False, separators=compact) if spec.kind in ("json", "choice") else str(spec.value)
            unknown = set(stated) - set(self._plain.tokenizer_alphabet) - {"\n", " "}
            if spec.options.get("any_whitespace") is False and " " in stated:
                return "compact JSON whose texts hold spaces"  # it takes white space away within texts as well
            lacks = f"the character {min(unknown)!r}, which no token spells by itself" if unknown else None
        return lacks

    def compile(self, spec: GuideSpec) -> Guide:
        try:
            self.enforcer(spec)
        except Exception as error:
            # The library raises whatever it stumbles over; which classes is not documented.
            raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
        return EnforcerGuide(lambda: self.enforcer(spec))

    def enforcer(self, spec: GuideSpec) -> Any:
        """The library's enforcer of a constraint: one per sequence, because parsers share what they are parsing."""
        from lmformatenforcer import CharacterLevelParserConfig, JsonSchemaParser, RegexParser, TokenEnforcer

        is_json = spec.kind == "json"
        data = self._json if is_json else self._plain
        config = CharacterLevelParserConfig(alphabet=data.tokenizer_alphabet)
        config.max_consecutive_whitespaces = 0 if spec.options.get("any_whitespace") is False else _WHITESPACE
        parser: Any
        if is_json:
            parser = JsonSchemaParser(spec.value, config)
        else:
            parser = RegexParser(spec.value if spec.kind == "regex" else choice_regex(spec.value), config)
        enforcer = TokenEnforcer(data, parser)
        parser.config = config  # the enforcer has put its own in its place
        return enforcer


def _text(token: bytes) -> str | None:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return None
