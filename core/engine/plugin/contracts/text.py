"""Contracts of text: tokenizers, and the parsers that split the output into reasoning, tool calls and content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.plugin.request import GuideSpec


class Tokenizer(ABC):
    """Text ↔ token ids. One per front-end process, used from several threads; must not import torch where that can be avoided."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        """Token ids. ``add_special_tokens``: BOS and the like as the tokenizer's own rule adds them.
        ``allow_special`` False: the text of a special token inside ``text`` is encoded as ordinary text."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of the ids; incomplete UTF-8 becomes U+FFFD. Ids outside the vocabulary decode to nothing."""

    @abstractmethod
    def token_text(self, token_id: int) -> str:
        """The piece as the vocabulary spells it (``Ġhello``, ``▁hello``, ``<0x0A>``)."""

    @abstractmethod
    def size(self) -> int:
        """Number of ids, added tokens included (ids are 0 … size-1, possibly with gaps)."""

    @abstractmethod
    def special_ids(self) -> frozenset[int]:
        """Ids that ``skip_special_tokens`` leaves out."""

    @abstractmethod
    def token_id(self, text: str) -> int | None:
        """The id of exactly that vocabulary entry, or None."""

    @property
    @abstractmethod
    def eos_token_id(self) -> int | None:
        """End of sequence."""

    @property
    @abstractmethod
    def bos_token_id(self) -> int | None:
        """Begin of sequence."""

    @abstractmethod
    def chat_template(self) -> str | dict[str, str] | None:
        """The Jinja template(s) that the tokenizer's files carry (a dict maps names to templates), or None."""

    def special_tokens(self) -> dict[str, str]:
        """``bos_token``, ``eos_token``, ``pad_token`` … as chat templates see them."""
        return {}

    def lean(self) -> Tokenizer:
        """A tokenizer with the same answers from less memory, perhaps slower to encode: for processes that need the vocabulary and few
        texts. It must not keep this one alive. By default this one."""
        return self

    def render_chat(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> list[int] | None:
        """Token ids of a conversation for tokenizers with a renderer of their own (mistral); None: use the Jinja template."""
        return None


class TokenizerPool(ABC):
    """Encodes texts off the event loop."""

    @abstractmethod
    async def encode(self, text: str, *, add_special_tokens: bool, allow_special: bool) -> list[int]:
        """As :meth:`Tokenizer.encode`."""

    def close(self) -> None:
        """End the pool's workers. May be called twice."""


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of one tool call: ``index`` counts calls; ``id`` and ``name`` come once, ``arguments`` in pieces of JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True):
    """What a parser made of a piece of output. Any split of the stream gives the same concatenation."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class ParserState(ABC):
    """One request's parser."""

    @abstractmethod
    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        """The next piece of text and the ids it came from."""

    @abstractmethod
    def finish(self) -> Delta:
        """The output ended; flush what was held back."""

    def reasoning_ended(self) -> bool:
        """Whether the answer proper has begun (a grammar applies from there). True for parsers without reasoning."""
        return True

    def keep_breaks(self) -> None:
        """Called before the first piece where a constraint says what the answer is: line breaks between the reasoning and the answer are
        then the answer's own."""
        return

    def thinking(self) -> bool:
        """Whether the next token would be part of the reasoning; usage counts such tokens."""
        return not self.reasoning_ended()


class Thinking(msgspec.Struct, frozen=True):
    """Where a choice's thinking stands before its first token, and the tokens around it.

    ``state``: ``open`` (the output begins inside), ``possible`` (the model may open it) or ``closed``. ``start`` and ``end``: the ids that
    open and end it, empty where the vocabulary has no tokens of its own for that. ``forced``: what the model is made to say when its
    thinking is to end; empty where it cannot be.
    """

    state: str
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()


class ReasoningParser(ABC):
    """Splits chain of thought from answer."""

    def markers(self) -> tuple[str, ...]:
        """Vocabulary entries that the parser must see in the text even where they are special tokens."""
        return ()

    def thinking(self, prompt_token_ids: Sequence[int]) -> Thinking | None:
        """What a thinking budget and a grammar after the thinking need to know; None where the format has no such boundary."""
        return None

    @abstractmethod
    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        """State for one choice; the prompt tells whether the template has already opened or closed the thinking."""


class ToolParser(ABC):
    """Finds tool calls in the answer."""

    def markers(self) -> tuple[str, ...]:
        """As :meth:`ReasoningParser.markers`."""
        return ()

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """A constraint under which the output is at least one call of one of ``tools`` in this parser's format, and nothing else.

        ``parallel`` False: exactly one. None: the format has none, so calls cannot be enforced.
        """
        return None

    def offer(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """A constraint under which the output is free, but what begins as a call in this parser's format is one of ``tools``.

        ``parallel`` False: nothing follows the first one. None: calls begin with nothing by which a grammar could tell them from text.
        """
        return None

    @abstractmethod
    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        """State for one choice, with the request's tools as JSON objects."""
