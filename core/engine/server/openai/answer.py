"""What completions and chat answers have in common."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from engine.assemble.choice import ChoiceDelta
from engine.assemble.message import join_calls
from engine.plugin.contracts.text import ToolCallDelta
from engine.plugin.request import SamplingParams
from engine.plugin.step import TokenLogprobs
from engine.server.generation import Generation
from engine.server.openai.logprobs import LogprobFormat
from engine.server.openai.protocol import GenerationBody
from engine.server.service import Service


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer looks: its id, the model's name, and what was asked for."""

    id: str
    object: str
    created: int
    model: str
    fingerprint: str
    logprobs: int | None
    usage_at_end: bool
    usage_always: bool
    cached_shown: bool
    format: LogprobFormat

    @classmethod
    def of(cls, service: Service, body: GenerationBody, params: SamplingParams, model: str, *, prefix: str, kind: str) -> Shape:
        """The shape of an answer to ``body``."""
        options = body.stream_options
        server = service.config.server
        as_ids = body.return_tokens_as_token_ids
        return cls(
            id=prefix + (body.request_id or service.new_id()),
            object=kind,
            created=int(time.time()),
            model=model,
            fingerprint=service.fingerprint,
            logprobs=params.logprobs,
            usage_at_end=bool(options and options.include_usage),
            usage_always=bool(options and options.include_usage and options.continuous_usage_stats),
            cached_shown=server.enable_prompt_tokens_details,
            format=LogprobFormat(service.texts, as_ids=server.return_tokens_as_token_ids if as_ids is None else as_ids),
        )

    def envelope(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object around choices; ``usage`` None leaves it out."""
        whole: dict[str, Any] = {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }
        if usage is not None:
            whole["usage"] = usage
        return whole

    def chunk(self, choice: dict[str, Any], generation: Generation) -> dict[str, Any]:
        """A piece of a stream."""
        return self.envelope([choice], self.usage(generation) if self.usage_always else None)

    def usage(self, generation: Generation) -> dict[str, Any]:
        """Exact token counts so far."""
        prompt, completion = generation.prompt_tokens(), generation.completion_tokens()
        counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        reasoning = generation.reasoning_tokens()
        if reasoning is not None:
            counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        if self.cached_shown:
            counts["prompt_tokens_details"] = {"cached_tokens": generation.cached_tokens()}
        return counts


class Collected:
    """A whole choice, gathered from its deltas."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.call_pieces: list[ToolCallDelta] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None

    def add(self, delta: ChoiceDelta) -> None:
        """Append what is new."""
        self.texts.append(delta.text)
        self.thoughts.append(delta.reasoning)
        self.call_pieces += delta.tool_calls
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason

    @property
    def text(self) -> str:
        """The text; content alone where parsers split the output."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        """The reasoning."""
        return "".join(self.thoughts)

    @property
    def tool_calls(self) -> tuple[ToolCallDelta, ...]:
        """The tool calls, whole or as far as they are known."""
        return join_calls(self.call_pieces)


async def collect(generation: Generation) -> list[Collected]:
    """Every sequence, run to its end."""
    collected = [Collected() for _ in generation.choices]
    async for index, delta in generation.events():
        collected[index].add(delta)
    return collected
