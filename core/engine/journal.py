"""The requests under way, so that a new engine process can continue what a dead one had begun."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.errors import EngineError
from engine.messages import Call, Output
from engine.plugin.request import Request
from engine.record import PROVEN


@dataclass
class Question:
    """A named operation that the engine was asked for. ``deaths``: engines that died by their own doing before they answered."""

    message: Call
    answer: asyncio.Future[Any]
    deaths: int = 0


class Entry:
    """One request: what was asked, and what has been delivered of the answer.

    ``sent``: this life of the engine has it, ``since`` when (monotonic seconds). ``proven``: this life has given it so much that its
    death is not about this request. ``doubtful``, ``deaths``, ``chance``: see :class:`engine.inquest.Inquest`.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.queue: asyncio.Queue[Output | EngineError] = asyncio.Queue()
        self.tokens: list[int] = []
        self.scored = 0
        self.sent = False
        self.since = 0.0
        self.proven = asyncio.Event()
        self.doubtful = False
        self.deaths = 0
        self.chance = 1.0
        self.skip = 0
        self._given = 0

    def deliver(self, output: Output) -> None:
        """Hand an output on; prompt positions that a former life has already scored are left out."""
        if output.prompt_logprobs and self.skip:
            known = min(self.skip, len(output.prompt_logprobs))
            self.skip -= known
            output = msgspec.structs.replace(output, prompt_logprobs=output.prompt_logprobs[known:])
        self.tokens.extend(output.token_ids)
        self.scored += len(output.prompt_logprobs or ())
        self._given += len(output.token_ids)
        if not self.proven.is_set() and (self._given >= PROVEN or output.finish_reason is not None):
            self.doubtful, self.deaths, self.chance = False, 0, 1.0
            self.proven.set()
        self.queue.put_nowait(output)

    def fail(self, error: EngineError) -> None:
        """Tell whoever waits."""
        self.proven.set()
        self.queue.put_nowait(error)

    def send(self) -> Request:
        """The request for the present engine: the delivered tokens follow the prompt, and count as output."""
        self.sent, self.since = True, time.monotonic()
        self.skip = 0 if self.tokens else self.scored
        if not self.tokens:
            return self.request
        ids = [*self.request.prompt_token_ids, *self.tokens]
        return msgspec.structs.replace(self.request, prompt_token_ids=ids, delivered=self.request.delivered + len(self.tokens))

    def lose_life(self) -> None:
        """The engine that had it is gone."""
        self.sent = False
        self._given = 0
        self.proven = asyncio.Event()
