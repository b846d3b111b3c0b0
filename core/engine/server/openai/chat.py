"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import RequestError
from engine.plugin.request import GuideSpec, SamplingParams
from engine.render.chat import Conversation
from engine.render.params import build_params, fill_bad_words, fit_context
from engine.server.body import read_json
from engine.server.generation import Generation, Job
from engine.server.guided import check_strict, constrain
from engine.server.openai.answer import Collected, Shape, collect
from engine.server.openai.checks import check_chat, salted
from engine.server.openai.protocol import ChatBody, ignored_header, read_body
from engine.server.openai.thinking import after_thinking, template_options, thinking_limit
from engine.server.openai.tools import read_calling, show_call, show_piece
from engine.server.processors import process
from engine.server.service import Service
from engine.server.sse import EventStream, until_disconnect


async def chat(service: Service, request: Request) -> Response:
    """Serve one request."""
    arrival, turn = time.monotonic(), service.take_turn()
    body, ignored = read_body(await read_json(request), ChatBody)
    model = service.check("chat", body.model)
    check_chat(body)
    answer = await prepare(service, body, model, arrival, turn)
    service.metrics.ignored(len(ignored))
    service.log_request(request.state.request_id, "chat", answer.generation.job.prompts, answer.params)
    headers = ignored_header(ignored)
    if body.stream:
        return EventStream(answer.stream(), headers)
    whole = await until_disconnect(request, answer.whole())
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


def conversation_of(body: Any, truncate: int | None = None) -> Conversation:
    """The conversation of a chat or tokenize body. ``tool_choice`` none keeps the tools from the template."""
    tools = body.tools or None
    if getattr(body, "tool_choice", None) == "none":
        tools = None
    return Conversation(
        messages=body.messages,
        tools=tools,
        documents=body.documents or None,
        options=template_options(body),
        add_generation_prompt=True if body.add_generation_prompt is None else body.add_generation_prompt,
        continue_final_message=bool(body.continue_final_message),
        add_special_tokens=bool(body.add_special_tokens),
        truncate=truncate,
        template=getattr(body, "chat_template", None),
    )


async def prepare(service: Service, body: ChatBody, model: str, arrival: float, turn: int, *, endpoint: str = "chat") -> ChatAnswer:
    """Everything that can be refused is refused here, before the answer begins. Other routes make a chat body of theirs and come here."""
    limits = service.limits
    calling = read_calling(body, service.parsers)
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if body.max_completion_tokens is not None and body.max_completion_tokens < 1:
        raise RequestError(
            f"max_completion_tokens cannot be {body.max_completion_tokens}; allowed: at least 1.", param="max_completion_tokens"
        )
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    _check_top(body, limits.max_logprobs)
    params = build_params(body, limits, max_tokens=max_tokens, logprobs=logprobs)
    priority = service.check_priority(body.priority or 0)
    salt = salted(body.cache_salt)
    params = fill_bad_words(params, service.tokenizer, limits)
    params = await process(service, body.logits_processors, params)
    conversation = conversation_of(body, params.truncate_prompt_tokens)
    ids = await service.renderer.encode(conversation)
    thinking = service.parsers.thinking(ids)

    def place(guide: GuideSpec) -> GuideSpec:
        return after_thinking(calling.beside(guide), thinking)

    fitted = fit_context(params, len(ids), limits, param="messages")
    fitted = msgspec.structs.replace(fitted, thinking=thinking_limit(body, thinking))
    # Thinking without a token that ends it has no place after which calls could be held to anything.
    offered = None if thinking is not None and thinking.state == "open" and not thinking.end else calling.offered
    [fitted] = await constrain(service, body, [fitted], calls=calling.guide, offered=offered, place=place)
    await check_strict(service, body, calling, fitted.guide)
    parsing = service.parsers.parsing(calling.tools, single_call=calling.single, guide=calling.shaping(fitted.guide))
    job = Job(
        prompts=[ids], params=[fitted], endpoint=endpoint, model=model, arrival=arrival, turn=turn, priority=priority, cache_salt=salt,
        parsing=parsing,
    )  # fmt: skip
    kind = "chat.completion.chunk" if body.stream else "chat.completion"
    shape = Shape.of(service, body, params, model, prefix="chatcmpl-", kind=kind)
    last = body.messages[-1]
    role = service.config.server.response_role if conversation.add_generation_prompt else str(last["role"])
    echo = _last_text(last) if body.echo and last["role"] == role else ""
    reasons = parsing is not None and parsing.reasons and body.include_reasoning is not False
    return ChatAnswer(Generation(service, job), shape, params, role=role, echo=echo, reasons=reasons)


def _check_top(body: ChatBody, most: int) -> None:
    top = body.top_logprobs
    if top is not None and not 0 <= top <= most:
        raise RequestError(f"top_logprobs cannot be {top}; allowed: 0 to {most} (--max-logprobs).", param="top_logprobs")


def _last_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if isinstance(part, dict))


class ChatAnswer:
    """Shapes a generation as chat messages."""

    def __init__(
        self, generation: Generation, shape: Shape, params: SamplingParams, *, role: str, echo: str, reasons: bool = False
    ) -> None:
        """``reasons``: answers carry the reasoning."""
        self.generation = generation
        self.params = params
        self._shape = shape
        self._role = role
        self._echo = echo
        self.reasons = reasons

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        generation, shape = self.generation, self._shape
        collected = await collect(generation)
        choices = [self._choice(place, index, collected[index]) for place, index in enumerate(generation.returned(0))]
        answer = shape.envelope(choices, shape.usage(generation))
        if self.params.prompt_logprobs is not None:
            answer["prompt_logprobs"] = shape.format.prompt(generation.choices[0].prompt_logprobs, self.params.prompt_logprobs)
        return answer

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """The answer in pieces. The role comes with a choice's first piece, never alone: clients time the first chunk."""
        shape, generation = self._shape, self.generation
        pending = {index: Collected() for index in range(len(generation.choices))}
        begun: set[int] = set()
        async for index, delta in generation.events():
            waiting = pending[index]
            waiting.add(delta)
            if not (self._shows(waiting) or waiting.finish_reason is not None or (shape.logprobs is not None and waiting.token_ids)):
                continue
            message = self._piece(waiting, first=index not in begun)
            begun.add(index)
            pending[index] = Collected()
            yield shape.chunk({"index": index, "delta": message, **self._end(index, waiting)}, generation)
        if shape.usage_at_end:
            yield shape.envelope([], shape.usage(generation))

    def _shows(self, waiting: Collected) -> bool:
        return bool(waiting.text or waiting.call_pieces or (self.reasons and waiting.reasoning))

    def _piece(self, waiting: Collected, *, first: bool) -> dict[str, Any]:
        """The delta of a chunk."""
        message: dict[str, Any] = {"role": self._role} if first else {}
        text = self._echo + waiting.text if first else waiting.text
        if self.reasons and waiting.reasoning:
            message |= _both_names(waiting.reasoning)
        if waiting.call_pieces:
            message["tool_calls"] = [show_piece(call) for call in waiting.tool_calls]
        alone = len(message) == first
        if text or (alone and (first or waiting.finish_reason is None)):
            message["content"] = text
        return message

    def _choice(self, place: int, index: int, collected: Collected) -> dict[str, Any]:
        text: str | None = self._echo + collected.text
        if not text and (collected.call_pieces or (self.reasons and collected.reasoning)):
            text = None
        message: dict[str, Any] = {"role": self._role, "content": text, "refusal": None}
        if self.reasons:
            message |= _both_names(collected.reasoning or None)
        if collected.call_pieces:
            message["tool_calls"] = [show_call(call) for call in collected.tool_calls]
        return {"index": place, "message": message, **self._end(index, collected)}

    def _end(self, index: int, collected: Collected) -> dict[str, Any]:
        shape, reason = self._shape, collected.finish_reason
        if reason == "stop" and self.generation.choices[index].called:
            reason = "tool_calls"
        logprobs = None if shape.logprobs is None else shape.format.chat(collected.logprobs, shape.logprobs)
        return {"logprobs": logprobs, "finish_reason": reason, "stop_reason": collected.stop_reason}


def _both_names(reasoning: str | None) -> dict[str, Any]:
    """Old clients read the one name, new ones the other."""
    return {"reasoning": reasoning, "reasoning_content": reasoning}
