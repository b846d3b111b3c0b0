"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.server.body import read_json
from engine.server.errors import in_messages_shape
from engine.server.health import as_json
from engine.server.keepalive import kept_alive
from engine.server.messages.answer import MessageAnswer
from engine.server.messages.blocks import continues, read_messages
from engine.server.messages.protocol import RENAMED, SAME, CountBody, MessagesBody, answer_format, thinking_options
from engine.server.messages.tools import read_tools
from engine.server.openai.chat import conversation_of, prepare
from engine.server.openai.checks import check_chat
from engine.server.openai.protocol import ChatBody, ignored_header, named_header, read_body
from engine.server.renamed import renamed
from engine.server.service import Service
from engine.server.sse import NamedEventStream, until_disconnect

PING = {"type": "ping"}


async def message(service: Service, request: Request) -> Response:
    """Serve one request."""
    arrival, turn = time.monotonic(), service.take_turn()
    body, ignored = read_body(await read_json(request), MessagesBody)
    model = service.check("chat", body.model)
    with renamed(RENAMED):
        asked, left_out = chat_body(body)
        check_chat(asked)
        prepared = await prepare(service, asked, model, arrival, turn, endpoint="messages")
    service.metrics.ignored(len(ignored))
    service.log_request(request.state.request_id, "messages", prepared.generation.job.prompts, prepared.params)
    headers = ignored_header(ignored) | named_header("x-ignored-types", left_out)
    answer = MessageAnswer(prepared, service.new_id(), service.fingerprint)
    if body.stream:
        return MessageStream(kept_alive(answer.stream(), PING), headers)
    whole = await until_disconnect(request, answer.whole())
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


async def count_tokens(service: Service, request: Request) -> Response:
    """The tokens of the prompt that the same body would make for :func:`message`."""
    body, ignored = read_body(await read_json(request), CountBody)
    service.check("chat", body.model)
    with renamed(RENAMED):
        asked, left_out = chat_body(body)
        check_chat(asked)
        tokens = await service.renderer.encode(conversation_of(asked))
    response = as_json({"input_tokens": len(tokens)})
    response.headers.update(ignored_header(ignored) | named_header("x-ignored-types", left_out))
    return response


def chat_body(body: CountBody) -> tuple[ChatBody, list[str]]:
    """(the chat request that a body stands for, the types of tools that were left out). Raises RequestError."""
    messages = read_messages(body.messages, body.system)
    tools = read_tools(body.tools, body.tool_choice)
    begun = continues(messages)
    same = {name: getattr(body, name) for name in SAME if hasattr(body, name)}
    asked = ChatBody(
        **same,
        messages=messages,
        tools=tools.tools or None,
        tool_choice=tools.choice,
        parallel_tool_calls=tools.parallel,
        stop=list(body.stop_sequences) if isinstance(body, MessagesBody) and body.stop_sequences else None,
        chat_template_kwargs=thinking_options(body),
        reasoning_effort=body.output_config.effort if body.output_config is not None else None,
        response_format=answer_format(body),
        include_reasoning=body.thinking is None or body.thinking.display != "omitted",
        continue_final_message=begun,
        add_generation_prompt=not begun,
    )
    return asked, list(dict.fromkeys(tools.others))


class MessageStream(NamedEventStream):
    """The events of a message; a failure is an ``error`` event."""

    def failure(self, described: dict[str, Any], status: int) -> bytes:
        """See :class:`EventStream`."""
        return self.piece(in_messages_shape(described, status))
