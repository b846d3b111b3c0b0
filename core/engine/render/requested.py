"""Chat templates that come with requests: bounded before they are compiled, compiled once, the latest few kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import jinja2

from engine.errors import ModelFileError, RequestError
from engine.render.template import ChatTemplate

#: Characters of a template, and the depth to which its brackets may be nested.
MAX_CHARACTERS, MAX_DEPTH = 32_768, 64
#: Compiled templates that are kept.
KEPT = 32
#: Seconds that a rendering with one of them may take: it shares the processor with everybody's streams.
SECONDS = 1.0
FIELD = "chat_template"


class RequestTemplates:
    """Compiled templates of requests. May be used from several threads; compiling takes one at a time."""

    def __init__(self, variables: dict[str, str]) -> None:
        """``variables``: the tokenizer's special tokens."""
        self._variables = variables
        self._known: OrderedDict[bytes, ChatTemplate] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, source: str) -> ChatTemplate:
        """The compiled template. Raises RequestError for one that is too large, too deep or wrong."""
        if not 0 < len(source) <= MAX_CHARACTERS:
            raise _refused(f"it has {len(source)} characters; allowed: 1 to {MAX_CHARACTERS}")
        key = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self._compile(source)
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return found

    def _compile(self, source: str) -> ChatTemplate:
        _check_depth(source)
        try:
            return ChatTemplate(source, variables=self._variables, seconds=SECONDS, field=FIELD)
        except ModelFileError as error:
            raise _refused(str(error).removeprefix("The chat template cannot be compiled: ").rstrip(".")) from error


def _check_depth(source: str) -> None:
    """Count the open brackets as the lexer sees them: nothing is parsed, so nothing can recurse. Blocks, and whatever else nests without
    brackets, end at the parser's own limit."""
    depth = 0
    try:
        for _, kind, value in jinja2.Environment(autoescape=False).lex(source):
            depth += (value in ("(", "[", "{")) - (value in (")", "]", "}")) if kind == "operator" else 0
            if depth > MAX_DEPTH:
                raise _refused(f"its brackets are nested deeper than {MAX_DEPTH} levels")
    except jinja2.TemplateSyntaxError as error:
        raise _refused(str(error).rstrip(".")) from error


def _refused(cause: str) -> RequestError:
    return RequestError(f"{FIELD} cannot be used: {cause}.", param=FIELD, code="chat_template_refused")
