"""What the front end and the engine process say to each other: frozen, typed, msgpack on a private Unix socket."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plugin.request import FinishReason, Request
from engine.plugin.step import TokenLogprobs


class Add(msgspec.Struct, frozen=True, tag=True):
    """Front end → engine: serve this request."""

    request: Request


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Front end → engine: forget these requests; their pages are free before the next step."""

    ids: list[str]


class Call(msgspec.Struct, frozen=True, tag=True):
    """Front end → engine: a named operation (``reset_prefix_cache``, ``stats`` …), answered by a :class:`Returned`."""

    id: int
    method: str
    arguments: dict[str, Any] = {}


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Front end → engine: end."""


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """Seconds so far of the steps that a sequence took part in: planning them, running them, the model's forward passes in that."""

    scheduling: float = 0.0
    execute: float = 0.0
    forward: float = 0.0


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step gave one request.

    ``logprobs``: one entry per token id.
    ``prompt_logprobs``: the entries of newly computed prompt positions, in order, over the request's life
    one per prompt token but the first. ``stop_reason``: the stop token id that ended it (None for EOS). ``cached_tokens``: prompt tokens
    taken from the prefix cache, set in the first output. ``error``: text with finish reason ERROR. ``queued``/``started``: monotonic
    seconds when it entered the engine's queue and first ran, set in the first output, which comes with the first step, whatever that
    gave. ``spent``: with --collect-detailed-traces.
    """

    id: str
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    cached_tokens: int = 0
    queued: float = 0.0
    started: float = 0.0
    error: str | None = None
    pooled: bytes | None = None
    spent: Spent | None = None


class Stats(msgspec.Struct, frozen=True):
    """The engine's state after a step; counters count since the start, ``prefix_queries`` and ``prefix_hits`` in full blocks."""

    running: int = 0
    waiting: int = 0
    swapped: int = 0
    pages: int = 0
    pages_used: int = 0
    host_pages: int = 0
    host_pages_used: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    steps: int = 0
    step_tokens: int = 0
    step_seconds: float = 0.0


class Outputs(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end: the outputs of a step."""

    outputs: list[Output]
    stats: Stats | None = None


class Returned(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end: the answer to a :class:`Call`."""

    id: int
    value: Any = None
    error: str | None = None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end: the model is loaded and the cache allocated."""

    pages: int
    host_pages: int
    block_size: int
    page_bytes: int
    weight_bytes: int
    max_model_len: int
    seconds: dict[str, float] = {}


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end: how far a phase of the start is (bytes of weights)."""

    phase: str
    done: int
    total: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end: the engine cannot start or go on. ``error`` names a class of :mod:`engine.errors`."""

    error: str
    cause: str
    fix: str | None = None
    detail: str = ""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Engine → front end, every second: the process runs. ``busy``: seconds since the present step began, 0 between steps."""

    busy: float = 0.0


ToEngine = Add | Abort | Call | Stop
FromEngine = Outputs | Returned | Ready | Progress | Alive | Failed
