"""The requests under way, so that a new engine process can continue what a dead one had begun."""

from __future__ import annotations

import asyncio

import msgspec

from engine.errors import EngineError
from engine.messages import Output
from engine.plugin.request import Request


class Entry:
    """One request: what was asked, and what has been delivered of the answer.

    ``sent``: this life of the engine has it. ``fresh``: this life has given it something. ``blame``: how surely it ends engines;
    1 for each life that ended by a fault of its own while this was the only request that it could be about.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.queue: asyncio.Queue[Output | EngineError] = asyncio.Queue()
        self.tokens: list[int] = []
        self.scored = 0
        self.sent = False
        self.fresh = asyncio.Event()
        self.doubtful = False
        self.blame = 0.0
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
            self.doubtful, self.blame = False, 0.0
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

    def suspected(self) -> bool:
        """Whether the engine had it and had given it nothing yet, so that its end may be about this request."""
        return self.sent and not self.fresh.is_set()

    def lose_life(self) -> None:
        """The engine that had it is gone."""
        self.sent = False
        self.fresh = asyncio.Event()
