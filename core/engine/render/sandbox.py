"""The Jinja environment of chat templates: sandboxed, immutable, and bounded in time and size.

How the time limit works: every loop iteration, every call and every piece of output passes through a check of the deadline. What a
template does between two checks is bounded, because every text or list that it makes (products, sums, concatenations, formats, results
of calls and filters) is limited in size, and loops and calls are the only ways to repeat. So a template that never ends is really
stopped, on the thread that runs it, without being killed.
"""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from engine.render import bounds
from engine.render.bounds import TemplateLimit

#: Filters that take a width or a count.
SIZED_FILTERS = frozenset({"batch", "center", "indent", "round", "slice", "truncate", "urlize", "wordwrap"})


class TemplateRefusal(jinja2.TemplateError):
    """The template itself refused the conversation (``raise_exception``)."""


class GenerationTag(jinja2.ext.Extension):
    """``{% generation %} … {% endgeneration %}`` marks the model's turns for training; rendering shows what is inside."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """One per chat template; used from several threads, each with its own deadline."""

    intercepted_binops = frozenset({"*", "+", "%", "**"})

    def __init__(self) -> None:
        self._render = threading.local()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            extensions=[GenerationTag, jinja2.ext.loopcontrols],
            finalize=self._shown,
        )
        self.globals.pop("lipsum", None)
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.filters = {name: _bounded_filter(name, run) for name, run in self.filters.items()}
        self.filters.update(tojson=_tojson, _ticking=self._ticking, _joined=self._joined)
        # Compiled templates join their output, and that of macros and blocks, by this.
        self.concat = self._concat  # type: ignore[method-assign]

    def begin(self, seconds: float) -> None:
        """Start this thread's deadline."""
        self._render.deadline = time.monotonic() + seconds
        self._render.shown = 0

    def tick(self) -> None:
        """Raise TemplateLimit when this thread's deadline has passed."""
        deadline = getattr(self._render, "deadline", None)
        if deadline is not None and time.monotonic() > deadline:
            raise TemplateLimit("the chat template takes too long")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """As the sandbox calls, within the limits."""
        __self.tick()
        bounds.method(__obj, args, kwargs)
        return bounds.result(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """As the sandbox wraps a text's ``format``, within the limits."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            bounds.method(value, args, kwargs)
            return wrapped(*args, **kwargs)

        return checked

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Products, sums, formats and powers, refused before they become large."""
        bounds.operation(operator, left, right)
        return bounds.result(super().call_binop(context, operator, left, right))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Limiter().visit(super()._parse(source, name, filename))
        return tree

    def _shown(self, value: Any) -> Any:
        """A value that is put out; blocks keep what they put out, so all of it counts."""
        shown = getattr(self._render, "shown", 0) + bounds.measure(value)
        self._render.shown = shown
        if shown > bounds.MAX_LENGTH:
            raise TemplateLimit("the chat template makes a text that is too long")
        return value

    def _ticking(self, items: Any) -> Any:
        if isinstance(items, (list, tuple, dict, str, range)):
            return _Sized(items, self.tick)
        return _ticking(items, self.tick)

    def _joined(self, items: list[Any]) -> str:
        return self._concat(str(bounds.result(item)) for item in items)

    def _concat(self, pieces: Iterable[str]) -> str:
        found: list[str] = []
        length = 0
        for piece in pieces:
            self.tick()
            length += len(piece)
            if length > bounds.MAX_LENGTH:
                raise TemplateLimit("the chat template makes a text that is too long")
            found.append(piece)
        return "".join(found)


class _Limiter(NodeTransformer):
    """Puts the environment's checks into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_ticking", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        items = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(items, "_joined", [], [], None, None, lineno=node.lineno)


class _Sized:
    """A sized iterable whose every item passes the deadline check; sized, so that ``loop.length`` costs no copy."""

    def __init__(self, items: Any, tick: Callable[[], None]) -> None:
        self._items = items
        self._tick = tick

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return _ticking(self._items, self._tick)


def _ticking(items: Iterable[Any], tick: Callable[[], None]) -> Iterator[Any]:
    for item in items:
        tick()
        yield item


def _bounded_filter(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any, **kwargs: Any) -> Any:
        if name in SIZED_FILTERS:
            bounds.widths((*args[1:], *kwargs.values()))
        for value in args:
            bounds.result(value)
        if name == "format":
            bounds.operation("%", str(args[0]), args[1:])
        elif name == "replace" and len(args) >= 3:
            bounds.replacement(str(args[-3]), str(args[-2]), str(args[-1]))
        elif name == "join":
            bounds.separator(args, kwargs)
        return bounds.result(run(*args, **kwargs))

    # jinja2 learns from an attribute what a filter wants first (context, environment).
    checked.__dict__.update(getattr(run, "__dict__", {}))
    return checked


def _raise_exception(message: str) -> Any:
    raise TemplateRefusal(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    bounds.result(value)
    if indent is not None:
        bounds.widths((indent,))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
