"""The requests under way, so that a new engine process can continue what a dead one had begun."""

from __future__ import annotations

import asyncio

import msgspec

from engine.errors import EngineError
from engine.messages import Output
from engine.plugin.request import Request


class Entry:
    """One request: what was asked, and what has been delivered of the answer.

    ``sent``: this life of the engine has it. ``barren``: lives that ended while they had it and had given it nothing.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.queue: asyncio.Queue[Output | EngineError] = asyncio.Queue()
        self.tokens: list[int] = []
        self.scored = 0
        self.sent = False
        self.fresh = asyncio.Event()
        self.barren = 0
        self.skip = 0

    def deliver(self, output: Output) -> None:
        """Hand an output on; prompt positions that a former life has already scored are left out."""
        if output.prompt_logprobs and self.skip:
            known = min(self.skip, len(output.prompt_logprobs))
            self.skip -= known
            output = msgspec.structs.replace(output, prompt_logprobs=output.prompt_logprobs[known:])
        self.tokens.extend(output.token_ids)
        self.scored += len(output.prompt_logprobs or ())
        if output.token_ids or output.finish_reason is not None:
            self.barren = 0
            self.fresh.set()
        self.queue.put_nowait(output)

    def fail(self, error: EngineError) -> None:
        """Tell whoever waits."""
        self.fresh.set()
        self.queue.put_nowait(error)

    def continued(self) -> Request:
        """The request for a new engine: the delivered tokens follow the prompt, and count as output."""
        self.skip = 0 if self.tokens else self.scored
        if not self.tokens:
            return self.request
        ids = [*self.request.prompt_token_ids, *self.tokens]
        return msgspec.structs.replace(self.request, prompt_token_ids=ids, delivered=self.request.delivered + len(self.tokens))

    def lose_life(self) -> None:
        """The engine died. It had the request; did it ever give it anything?"""
        if self.sent and not self.fresh.is_set():
            self.barren += 1
        self.sent = False
        self.fresh = asyncio.Event()


def suspects(entries: list[Entry], deaths: int) -> list[Entry]:
    """The requests that each of the last ``deaths`` lives had and gave nothing before it ended."""
    return [entry for entry in entries if entry.barren >= deaths]
