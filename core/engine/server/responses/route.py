"""POST /v1/responses, and the routes of kept responses, of which there are none."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import RequestError
from engine.server.body import read_json
from engine.server.openai.chat import prepare
from engine.server.openai.checks import check_chat
from engine.server.openai.protocol import ChatBody, ignored_header, named_header, read_body
from engine.server.renamed import renamed
from engine.server.responses.answer import ResponseAnswer
from engine.server.responses.items import read_input
from engine.server.responses.protocol import RENAMED, SAME, ResponsesBody, check
from engine.server.responses.tools import read_choice, read_tools
from engine.server.service import Service
from engine.server.sse import NamedEventStream, until_disconnect


async def respond(service: Service, request: Request) -> Response:
    """Serve one request."""
    arrival, turn = time.monotonic(), service.take_turn()
    body, ignored = read_body(await read_json(request), ResponsesBody)
    model = service.check("chat", body.model)
    check(body)
    with renamed(RENAMED):
        asked, left_out = chat_body(body)
        check_chat(asked)
        prepared = await prepare(service, asked, model, arrival, turn, endpoint="responses")
    service.metrics.ignored(len(ignored))
    service.log_request(request.state.request_id, "responses", prepared.generation.job.prompts, prepared.params)
    headers = ignored_header(ignored) | named_header("x-ignored-types", left_out)
    answer = ResponseAnswer(prepared, body, service.new_id())
    if body.stream:
        return ResponseStream(answer.stream(), headers)
    whole = await until_disconnect(request, answer.whole())
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


async def find_response(service: Service, request: Request) -> Response:
    """Nothing is kept, so nothing is found."""
    raise RequestError(
        f"There is no response {str(request.path_params['name'])[:100]!r}: this server keeps none (store is ignored).",
        param="response_id", code="not_found", http_status=404,
    )  # fmt: skip


def chat_body(body: ResponsesBody) -> tuple[ChatBody, list[str]]:
    """(the chat request that a body stands for, the types of tools and items that were left out). Raises RequestError."""
    messages, items = read_input([] if body.input is None else body.input, body.instructions)
    tools, others = read_tools(body.tools)
    same = {name: getattr(body, name) for name in SAME}
    asked = ChatBody(
        **same,
        messages=messages,
        tools=tools or None,
        tool_choice=read_choice(body.tool_choice),
        max_completion_tokens=body.max_output_tokens,
        reasoning_effort=body.reasoning.effort if body.reasoning is not None else None,
        response_format=_format(body.text.format if body.text is not None else None),
    )
    return asked, list(dict.fromkeys((*others, *items)))


def _format(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """text.format as chat has it: the schema stands one level deeper there."""
    if value is None or value.get("type") != "json_schema":
        return value
    return {"type": "json_schema", "json_schema": {key: item for key, item in value.items() if key != "type"}}


class ResponseStream(NamedEventStream):
    """The events of a response; a failure of the server itself is an ``error`` event."""

    def failure(self, described: dict[str, Any], status: int) -> bytes:
        """See :class:`EventStream`."""
        error = described["error"]
        return self.piece({"type": "error", "code": error["code"], "message": error["message"], "param": error["param"]})
