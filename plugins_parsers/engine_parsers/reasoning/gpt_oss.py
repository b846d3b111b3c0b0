"""gpt-oss: the analysis channel is reasoning, commentary without a recipient and final are content."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import ParserState, ReasoningParser, Thinking, Tokenizer, hookimpl
from engine_parsers._harmony import CHANNEL, MARKERS, MESSAGE, Channels

ENGINE_API = 1


class ChannelParser(ReasoningParser):
    """See the module."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._answer = tuple(tokenizer.encode(f"{CHANNEL}final{MESSAGE}", add_special_tokens=False))

    def markers(self) -> tuple[str, ...]:
        return MARKERS

    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        return Channels()

    def thinking(self, prompt_token_ids: Sequence[int]) -> Thinking:
        closed = tuple(prompt_token_ids[len(prompt_token_ids) - len(self._answer) :]) == self._answer
        return Thinking("closed" if closed else "open", end=self._answer)


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    return ChannelParser(tokenizer)
