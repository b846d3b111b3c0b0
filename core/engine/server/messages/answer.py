"""A generation as a message: its blocks, and its events in order."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from engine.server.generation import Generation
from engine.server.openai.chat import ChatAnswer
from engine.server.segments import CALL, REASONING, Change, Segment, Segments

Event = dict[str, Any]
_PIECES = {REASONING: ("thinking_delta", "thinking"), CALL: ("input_json_delta", "partial_json"), "text": ("text_delta", "text")}


class MessageAnswer:
    """Shapes the one choice of a prepared chat as a message. Use either :meth:`whole` or :meth:`stream`, once."""

    def __init__(self, answer: ChatAnswer, message_id: str, fingerprint: str) -> None:
        """``message_id``: unique in the server's life; ``fingerprint``: of the server, for signatures."""
        self.generation: Generation = answer.generation
        self._segments = Segments(reasoning=answer.reasons)
        self._id = f"msg_{message_id}"
        self._fingerprint = fingerprint
        self._finish: str | None = None
        self._stop: str | int | None = None

    async def whole(self) -> dict[str, Any]:
        """The message at once. Raises EngineError where generating failed."""
        async for _ in self._changes():
            pass
        blocks = [self._block(segment) for segment in self._segments.all]
        return {**self._message(blocks), **self._end(), "usage": self._usage()}

    async def stream(self) -> AsyncIterator[Event]:
        """The events. The first tells the whole prompt as input: what of it was cached is known at the end."""
        begun = {**self._message([]), "stop_reason": None, "stop_sequence": None, "usage": self._usage()}
        yield {"type": "message_start", "message": begun}
        yield {"type": "ping"}
        async for change in self._changes():
            for event in self._events(change):
                yield event
        yield {"type": "message_delta", "delta": self._end(), "usage": self._usage()}
        yield {"type": "message_stop"}

    async def _changes(self) -> AsyncIterator[Change]:
        async for _, delta in self.generation.events():
            if delta.finish_reason is not None:
                self._finish, self._stop = delta.finish_reason, delta.stop_reason
            for change in self._segments.feed(delta):
                yield change
        for change in self._segments.finish():
            yield change

    def _events(self, change: Change) -> list[Event]:
        segment = change.segment
        if change.what == "begun":
            return [{"type": "content_block_start", "index": segment.number, "content_block": _empty(segment)}]
        if change.what == "grown":
            kind, name = _PIECES[segment.kind]
            return [_delta(segment, {"type": kind, name: change.piece})]
        stop = {"type": "content_block_stop", "index": segment.number}
        if segment.kind == REASONING:
            return [_delta(segment, {"type": "signature_delta", "signature": self._signature(segment.value)}), stop]
        return [stop]

    def _message(self, blocks: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self.generation.job.model, "content": blocks}

    def _block(self, segment: Segment) -> dict[str, Any]:
        whole = segment.value
        if segment.kind == REASONING:
            return {"type": "thinking", "thinking": whole, "signature": self._signature(whole)}
        if segment.kind == CALL:
            return {"type": "tool_use", "id": segment.call_id, "name": segment.name, "input": read_arguments(whole)}
        return {"type": "text", "text": whole, "citations": None}

    def _end(self) -> dict[str, Any]:
        stopped = self._finish == "stop" and isinstance(self._stop, str)
        return {"stop_reason": self._reason(stopped), "stop_sequence": self._stop if stopped else None}

    def _reason(self, stopped: bool) -> str:
        if self._finish == "length":
            return "max_tokens"
        if self.generation.choices[0].called:
            return "tool_use"
        return "stop_sequence" if stopped else "end_turn"

    def _usage(self) -> dict[str, Any]:
        """Counts so far; cached tokens are no input here."""
        generation = self.generation
        cached = generation.cached_tokens()
        counts: dict[str, Any] = {
            "input_tokens": generation.prompt_tokens() - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": generation.completion_tokens(),
        }
        reasoning = generation.reasoning_tokens()
        if reasoning is not None:
            counts["output_tokens_details"] = {"thinking_tokens": reasoning}
        return counts

    def _signature(self, thinking: str) -> str:
        """Clients drop thinking without a signature, so there is always one; nothing here checks those that come back."""
        return base64.b64encode(hashlib.sha256(f"{self._fingerprint}\n{thinking}".encode()).digest()).decode()


def read_arguments(text: str) -> dict[str, Any]:
    """A call's arguments as the object that this API wants; text that was cut off or is no object stands under ``_raw``."""
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return {"_raw": text}
    return value if isinstance(value, dict) else {"_raw": text}


def _empty(segment: Segment) -> dict[str, Any]:
    """A block that has just begun. Its thinking has no signature yet, and an empty one would be worse than none."""
    if segment.kind == REASONING:
        return {"type": "thinking", "thinking": ""}
    if segment.kind == CALL:
        return {"type": "tool_use", "id": segment.call_id, "name": segment.name, "input": {}}
    return {"type": "text", "text": ""}


def _delta(segment: Segment, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": segment.number, "delta": delta}
