"""Chat templates: which one applies, and rendering a conversation with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import msgspec

from engine.errors import ConfigError, ModelFileError, RequestError
from engine.render.bounds import TemplateLimit
from engine.render.content import TemplateHabits, inspect_template
from engine.render.sandbox import BoundedEnvironment, TemplateRefusal

#: Seconds that one rendering may take.
RENDER_SECONDS = 2.0
#: Variables that the server gives; a request's chat_template_kwargs may not replace them.
RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize", "conversation"}
)


class ChatTemplate:
    """One template, compiled; rendering is thread-safe."""

    def __init__(
        self, source: str, *, variables: dict[str, str] | None = None, seconds: float = RENDER_SECONDS, field: str = "messages"
    ) -> None:
        """``variables``: the tokenizer's special tokens; ``field``: who is named where rendering fails. Raises ModelFileError for a
        template that does not compile."""
        self._environment = BoundedEnvironment()
        self._variables = dict(variables or {})
        self._seconds = seconds
        self._field = field
        try:
            self.habits: TemplateHabits = inspect_template(source, self._environment)
            self._template = self._environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise ModelFileError(
                f"The chat template cannot be compiled: {error}", fix="another template with --chat-template FILE"
            ) from error

    def render(self, variables: dict[str, Any]) -> str:
        """The text of a conversation. Raises RequestError where the template refuses it, fails on it or does not end."""
        self._environment.begin(self._seconds)
        try:
            return self._template.render({**self._variables, **variables})
        except TemplateRefusal as error:
            raise RequestError(f"The chat template refuses these messages: {error}", param=self._field) from error
        except TemplateLimit as error:
            raise RequestError(f"The messages cannot be rendered: {error}.", param=self._field, code="chat_template_limit") from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            cause = f"The chat template fails on these messages: {type(error).__name__}: {error}"
            raise RequestError(cause, param=self._field) from error


class TemplateSet(msgspec.Struct, frozen=True):
    """The templates of a server: one for conversations, and one for those with tools where the tokenizer has it."""

    default: ChatTemplate
    tools: ChatTemplate | None = None

    def choose(self, has_tools: bool) -> ChatTemplate:
        """The template for a conversation."""
        return self.tools if has_tools and self.tools is not None else self.default


def load_templates(flag: str | None, carried: str | dict[str, str] | None, variables: dict[str, str]) -> TemplateSet | None:
    """The templates to use: what --chat-template says, else what the tokenizer carries, else None."""
    if flag is not None:
        return TemplateSet(ChatTemplate(read_flag(flag), variables=variables))
    if not carried:
        return None
    if isinstance(carried, str):
        return TemplateSet(ChatTemplate(carried, variables=variables))
    compiled = {name: ChatTemplate(source, variables=variables) for name, source in carried.items()}
    default = compiled.get("default") or next(iter(compiled.values()))
    return TemplateSet(default, compiled.get("tool_use"))


def read_flag(value: str) -> str:
    """--chat-template: a file, or a template in one line. Text without braces or line breaks must be an existing file."""
    path = Path(value)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        # A template is not a possible file name on every system; then it is no file.
        pass
    if not any(mark in value for mark in "{}\n"):
        raise ConfigError(f"--chat-template: there is no file {value!r}.", fix="a path of a template file, or the template itself")
    return value
