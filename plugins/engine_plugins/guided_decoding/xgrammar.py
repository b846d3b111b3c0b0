"""Grammars by xgrammar: JSON schemas, regular expressions, GBNF and Lark grammars, structural tags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Tokenizer, UnsupportedConstraint, Vocabulary, hookimpl

from ._formats import spelled
from ._marked import marked
from ._rewrite import bounded, choice_grammar, with_schemas
from ._rules import XGRAMMAR, unmet
from ._xgrammar import Encode, Library, XGrammarGuide

ENGINE_API = 1
#: Longest run of white space between the parts of a JSON text: models that may write more sometimes never stop.
MAX_WHITESPACE = 24
#: What special tokens are to the library: a byte that no text has, so only a grammar that names their ids allows them. The library never
#: allows a token without bytes. Text between triggered tags is any bytes to it; there a guide's ``never`` takes them out.
UNSPELLABLE = b"\xff"
#: Bytes that the library may keep of what it has compiled: the masks of a rule serve every grammar that has the same rule, which takes most
#: schemas from 16 ms to one with 152 thousand tokens.
KEPT_BYTES = 8 * 2**20
#: Grammars after which it begins anew: it keeps them, too, and counts a thirtieth of what a small one takes.
KEPT_GRAMMARS = 512
#: Has the rules that most schemas have; compiled when the compiler is made, so that the first schemas find them.
_COMMON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": "number"}, "sure": {"type": "boolean"},
        "texts": {"type": "array", "items": {"type": "string"}}, "counts": {"type": "array", "items": {"type": "number"}},
        "none": {"type": "null"},
    },
}  # fmt: skip
#: What the library says of features that it lacks. References that lead nowhere are refused before: those it does not find are escaped.
_LACKS = ("not support", "Cannot find field")


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, allow_special=False)

    special = {tokenizer.token_text(i): i for i in tokenizer.special_ids() if 0 <= i < vocab_size}
    return XGrammarCompiler(Vocabulary.of(tokenizer, vocab_size), encode, special)


class XGrammarCompiler(GuideCompiler):
    """One compiler per vocabulary; the library keeps rules, the host whole grammars."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode, special: Mapping[str, int] | None = None) -> None:
        """``encode``: the token ids of a text, as a model would write it. ``special``: the special tokens, by what they look like."""
        import xgrammar

        self._library = xgrammar
        self._matching = Library(xgrammar)
        self._words = -(-len(vocabulary.tokens) // 32)
        self._encode = encode
        self._special = {text: i for text, i in (special or {}).items() if text and i != vocabulary.end}
        tokens = list(vocabulary.tokens)
        for token in self._special.values():
            tokens[token] = UNSPELLABLE
        info = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, vocab_size=len(tokens), stop_token_ids=[vocabulary.end])
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=KEPT_BYTES)
        self._begin()

    def _begin(self) -> None:
        """Keep only what most schemas need."""
        self._compiler.clear_cache()
        self._compiled = 0
        for compact in (False, True):
            self._json(json.dumps(_COMMON), compact)

    def unsupported(self, spec: GuideSpec) -> str | None:
        if spec.options.get("whitespace_pattern") is not None:
            return "guided_whitespace_pattern"
        return unmet(spec, XGRAMMAR)

    def compile(self, spec: GuideSpec) -> Guide:
        if self._compiled == KEPT_GRAMMARS:
            self._begin()
        self._compiled += 1
        try:
            grammar = self._compile(spec)
        except (RuntimeError, TypeError) as error:
            reason = _reason(error)
            raise (UnsupportedConstraint if any(lack in reason for lack in _LACKS) else ValueError)(reason) from error
        # Free text stands in no other kind.
        plain = spec.kind == "structural_tag" and not spec.options.get("markers")
        return XGrammarGuide(self._matching, grammar, self._encode, self._special.values() if plain else (), self._words)

    def _compile(self, spec: GuideSpec) -> Any:
        compiler = self._compiler
        if spec.kind in ("json", "json_object"):
            schema = json.dumps(_written(spec.value) if spec.kind == "json" else {"type": "object"})
            return self._json(schema, spec.options.get("any_whitespace") is False)
        if spec.kind == "regex":
            return compiler.compile_regex(spec.value)
        if spec.kind == "choice":
            return compiler.compile_grammar(choice_grammar(spec.value))
        if spec.kind == "structural_tag":
            return self._structural_tag(spec)
        if _is_gbnf(spec.value):
            return compiler.compile_grammar(spec.value)
        return compiler.compile_lark(spec.value)

    def _json(self, schema: str, compact: bool) -> Any:
        compiler = self._compiler
        # strict_mode closes objects and arrays that do not say whether they are open, against the specification's default,
        # but as every model provider does: an open object never ends for a small model.
        if compact:
            return compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"), strict_mode=True)
        return compiler.compile_json_schema(schema, any_whitespace=True, max_whitespace_cnt=MAX_WHITESPACE, strict_mode=True)

    def _structural_tag(self, spec: GuideSpec) -> Any:
        value = spec.value
        if "format" in value:
            ids = {text: self._special[text] for text in spec.options.get("markers", ()) if text in self._special}
            shape = with_schemas(value["format"], _written)
            return self._compiler.compile_structural_tag(json.dumps({**value, "format": marked(shape, ids)}))
        items = [
            self._library.StructuralTagItem(begin=item["begin"], schema=json.dumps(_written(item["schema"])), end=item["end"])
            for item in value["structures"]
        ]
        return self._compiler.compile_structural_tag(items, value["triggers"])


def _written(schema: Any) -> Any:
    """A schema in words that the library keeps to the letter."""
    return bounded(spelled(schema))


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
