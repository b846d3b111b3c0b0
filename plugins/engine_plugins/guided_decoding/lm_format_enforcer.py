"""Character-level parsers by lm-format-enforcer: JSON schemas, regular expressions and choices, with no compilation to speak of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Matcher, Tokenizer, Vocabulary, hookimpl

from ._rewrite import choice_regex
from ._rules import ENFORCER, unmet

if TYPE_CHECKING:
    import numpy as np

ENGINE_API = 1
#: Longest run of spaces between the parts of a JSON text.
_WHITESPACE = 24
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
#: Estimated memory of a guide: the library does not tell.
_BYTES = 262_144


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
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
        return unmet(spec, ENFORCER)

    def compile(self, spec: GuideSpec) -> Guide:
        try:
            self.enforcer(spec)
        except Exception as error:
            # The library raises whatever it stumbles over; which classes is not documented.
            raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
        return EnforcerGuide(self, spec)

    def enforcer(self, spec: GuideSpec) -> Any:
        """The library's enforcer of a constraint: one per sequence, because parsers share what they are parsing."""
        from lmformatenforcer import CharacterLevelParserConfig, JsonSchemaParser, RegexParser, TokenEnforcer

        is_json = spec.kind in ("json", "json_object")
        data = self._json if is_json else self._plain
        config = CharacterLevelParserConfig(alphabet=data.tokenizer_alphabet)
        config.max_consecutive_whitespaces = 0 if spec.options.get("any_whitespace") is False else _WHITESPACE
        parser: Any
        if is_json:
            parser = JsonSchemaParser(spec.value if spec.kind == "json" else _ANY_OBJECT, config)
        else:
            parser = RegexParser(spec.value if spec.kind == "regex" else choice_regex(spec.value), config)
        enforcer = TokenEnforcer(data, parser)
        parser.config = config  # the enforcer has put its own in its place
        return enforcer


class EnforcerGuide(Guide):
    """A constraint that is parsed again for each sequence."""

    def __init__(self, compiler: EnforcerCompiler, spec: GuideSpec) -> None:
        self._compiler = compiler
        self._spec = spec

    def start(self) -> Matcher:
        return EnforcerMatcher(self._compiler.enforcer(self._spec))

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
            from lmformatenforcer.tokenlist import TokenList

            tokens = TokenList(False, self._enforcer.vocab_size)
            self._enforcer._collect_allowed_tokens(parser, self._enforcer.tokenizer_tree.root, tokens, parser.shortcut_key())
            found = list(tokens.allowed_tokens)
            if parser.can_end():
                found.append(self._enforcer.eos_token_id)
            self._states[-1] = (parser, found)
        return found


def _text(token: bytes) -> str | None:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return None
