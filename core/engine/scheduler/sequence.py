"""A request on its way through the scheduler."""

from __future__ import annotations

from enum import Enum
from typing import Any

from engine.kvcache.table import BlockTable
from engine.plugin.contracts.scheduling import RequestView
from engine.plugin.request import Request
from engine.plugin.step import Work


class State(Enum):
    """Where a sequence is. PARKED: waiting for blocks that another sequence is computing."""

    WAITING = "waiting"
    PARKED = "parked"
    RUNNING = "running"
    SWAPPED = "swapped"
    ENDED = "ended"


#: Stands in ``tokens`` for the one that the step in flight samples.
UNKNOWN = -1


class Sequence:
    """One request's tokens and how far they are computed.

    ``tokens``: prompt and output, of which ``num_prompt`` are the prompt; what a former engine delivered is output.
    ``limit``: the length at which the sequence ends.
    ``computed``: tokens whose KV is in the pages.
    ``told``: tokens that the workers know; 0: they do not know the sequence.
    ``draft``: tokens proposed after the last one.
    ``matched``: cached blocks found at the last attempt to start, None before the first.
    ``cached``: prompt tokens that the prefix cache gave at the first start, None before.
    ``scored``: the first prompt position whose log-probability is not delivered.
    ``expected``: the step in flight counts as done: ``computed`` has its tokens, ``tokens`` ends with UNKNOWN where it samples one.
    """

    __slots__ = (
        "answered", "cached", "computed", "draft", "expected", "key", "limit", "matched", "num_prompt", "number", "preemptions",
        "queued", "request", "scored", "started", "state", "table", "tokens", "told",
    )  # fmt: skip

    def __init__(
        self, number: int, request: Request, tokens: list[int], table: BlockTable, limit: int, now: float
    ) -> None:
        self.number = number
        self.request = request
        self.tokens = tokens
        self.table = table
        self.limit = limit
        self.num_prompt = len(tokens) - request.delivered
        self.computed = 0
        self.told = 0
        self.draft: list[int] = []
        self.expected = False
        self.matched: int | None = None
        self.cached: int | None = None
        self.scored = self.num_prompt if request.delivered else 1
        self.queued = now
        self.started = 0.0
        self.answered = False
        self.preemptions = 0
        self.state = State.WAITING
        self.key: Any = None

    @property
    def remaining(self) -> int:
        """Known tokens still to compute; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def ahead(self) -> bool:
        """Whether the last token is not known yet."""
        return self.tokens[-1] == UNKNOWN

    @property
    def full(self) -> bool:
        """Whether the token in flight is certainly the last."""
        return self.expected and len(self.tokens) >= self.limit

    def expect(self, work: Work) -> None:
        """Go on as if the step with this work, which has no drafts, had succeeded and sampled something."""
        self.expected = True
        self.computed = work.start + work.count
        if work.sample and self.request.pooling is None:
            self.tokens.append(UNKNOWN)

    def resolve(self) -> bool:
        """The result has come: forget what stood for it. True: ``computed`` counts it already, or was reset since."""
        expected, self.expected = self.expected, False
        if expected and self.ahead:
            self.tokens.pop()
        return expected

    @property
    def longest(self) -> int:
        """The most tokens whose KV the sequence can ever need: the last token of its life is not computed."""
        return max(len(self.tokens), self.limit - 1)

    @property
    def reads_cache(self) -> bool:
        """Whether cached blocks serve: not for prompt log-probabilities and pooling, which need every position."""
        return self.request.params.prompt_logprobs is None and self.request.pooling is None

    def view(self) -> RequestView:
        """What plugins may know."""
        request = self.request
        return RequestView(
            id=request.id,
            priority=request.priority,
            arrival=request.arrival,
            prompt_tokens=self.num_prompt,
            output_tokens=len(self.tokens) - self.num_prompt,
            computed=self.computed,
            preemptions=self.preemptions,
            adapter=request.adapter,
        )
