"""Contracts of text: tokenizers, and the parsers that split the output into reasoning, tool calls and content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec


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


class ReasoningParser(ABC):
    """Splits chain of thought from answer."""

    @abstractmethod
    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        """State for one choice; the prompt tells whether the template has already opened or closed the thinking."""


class ToolParser(ABC):
    """Finds tool calls in the answer."""

    @abstractmethod
    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        """State for one choice, with the request's tools as JSON objects."""
