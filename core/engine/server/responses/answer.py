"""A generation as a response: its items, its events in order, and the response object between and after them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from engine.errors import EngineError
from engine.server.errors import describe
from engine.server.generation import Generation
from engine.server.openai.chat import ChatAnswer
from engine.server.responses.protocol import ResponsesBody
from engine.server.segments import CALL, REASONING, Change, Segment, Segments

Event = dict[str, Any]
_PREFIX = {REASONING: "rs", CALL: "fc"}


class ResponseAnswer:
    """Shapes the one choice of a prepared chat as a response. Use either :meth:`whole` or :meth:`stream`, once."""

    def __init__(self, answer: ChatAnswer, body: ResponsesBody, request_id: str) -> None:
        """``request_id``: unique in the server's life."""
        self.generation: Generation = answer.generation
        self._params = answer.params
        self._segments = Segments(reasoning=answer.reasons)
        self._body = body
        self._id = request_id
        self._created = int(time.time())
        self._output: list[dict[str, Any]] = []
        self._count = 0

    async def whole(self) -> dict[str, Any]:
        """The response at once. Raises EngineError where generating failed."""
        finish = None
        async for _, delta in self.generation.events():
            finish = delta.finish_reason or finish
            for change in self._segments.feed(delta):
                self._item_events(change, finish)
        for change in self._segments.finish():
            self._item_events(change, finish)
        return self._end(finish)["response"]  # type: ignore[no-any-return]

    async def stream(self) -> AsyncIterator[Event]:
        """The events. A failure is one of them."""
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response("in_progress"))
        finish = None
        try:
            async for _, delta in self.generation.events():
                finish = delta.finish_reason or finish
                for change in self._segments.feed(delta):
                    for event in self._item_events(change, finish):
                        yield event
        except EngineError as error:
            described = describe(error)[0]["error"]
            failure = {"code": "server_error", "message": described["message"]}
            yield self._event("response.failed", response={**self._response("failed"), "error": failure})
            return
        for change in self._segments.finish():
            for event in self._item_events(change, finish):
                yield event
        yield self._end(finish)

    def _end(self, finish: str | None) -> Event:
        if finish == "length":
            reason = {"reason": "max_output_tokens"}
            return self._event("response.incomplete", response={**self._response("incomplete"), "incomplete_details": reason})
        return self._event("response.completed", response=self._response("completed"))

    def _item_events(self, change: Change, finish: str | None) -> list[Event]:
        """The events of a change; an item that the output's end cut off is incomplete."""
        segment = change.segment
        if change.what == "begun":
            return list(self._begun(segment))
        if change.what == "grown":
            return [self._event(_GROWN[segment.kind], delta=change.piece, **self._place(segment), **_extra(segment))]
        return list(self._ended(segment, "incomplete" if finish == "length" else "completed"))

    def _begun(self, segment: Segment) -> Iterator[Event]:
        number = segment.number
        self._output.append(self._item(segment, "in_progress", begun=True))
        yield self._event("response.output_item.added", output_index=number, item=self._output[number])
        if segment.kind != CALL:
            yield self._event("response.content_part.added", **self._place(segment), part=_part(segment, ""))

    def _ended(self, segment: Segment, status: str) -> Iterator[Event]:
        number, whole, place = segment.number, segment.value, self._place(segment)
        self._output[number] = self._item(segment, status)
        if segment.kind == CALL:
            yield self._event("response.function_call_arguments.done", **place, name=segment.name, arguments=whole)
        else:
            yield self._event(_DONE[segment.kind], text=whole, **place, **_extra(segment))
            yield self._event("response.content_part.done", **place, part=_part(segment, whole))
        yield self._event("response.output_item.done", output_index=number, item=self._output[number])

    def _place(self, segment: Segment) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": self._item_id(segment), "output_index": segment.number}
        return place if segment.kind == CALL else {**place, "content_index": 0}

    def _item_id(self, segment: Segment) -> str:
        return f"{_PREFIX.get(segment.kind, 'msg')}_{self._id}-{segment.number}"

    def _item(self, segment: Segment, status: str, *, begun: bool = False) -> dict[str, Any]:
        """An output item; one that has just begun is empty."""
        identifier, whole = self._item_id(segment), "" if begun else segment.value
        if segment.kind == CALL:
            call = {"call_id": segment.call_id, "name": segment.name, "arguments": whole}
            return {"id": identifier, "type": "function_call", "status": status, **call}
        content = [] if begun else [_part(segment, whole)]
        if segment.kind == REASONING:
            return {"id": identifier, "type": "reasoning", "summary": [], "content": content, "status": status}
        return {"id": identifier, "type": "message", "status": status, "role": "assistant", "content": content}

    def _event(self, kind: str, /, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        return event

    def _response(self, status: str) -> dict[str, Any]:
        body, params, done = self._body, self._params, status in ("completed", "incomplete")
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "metadata": body.metadata or {},
            "model": self.generation.job.model,
            "output": list(self._output),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": params.temperature,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_logprobs": 0,
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": self._usage() if done else None,
            "user": body.user,
        }

    def _usage(self) -> dict[str, Any]:
        generation = self.generation
        prompt, output = generation.prompt_tokens(), generation.completion_tokens()
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": generation.cached_tokens()},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": generation.reasoning_tokens() or 0},
            "total_tokens": prompt + output,
        }


_GROWN = {REASONING: "response.reasoning_text.delta", CALL: "response.function_call_arguments.delta", "text": "response.output_text.delta"}
_DONE = {REASONING: "response.reasoning_text.done", "text": "response.output_text.done"}


def _part(segment: Segment, text: str) -> dict[str, Any]:
    if segment.kind == REASONING:
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _extra(segment: Segment) -> dict[str, Any]:
    return {"logprobs": []} if segment.kind == "text" else {}
