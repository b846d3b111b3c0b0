"""POST /v1/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.plugin.request import SamplingParams
from engine.plugin.step import TokenLogprobs
from engine.render.params import build_params, fill_bad_words, fit_context
from engine.render.prompt import parse_prompts
from engine.server.body import read_json
from engine.server.generation import Generation, Job
from engine.server.guided import constrain
from engine.server.openai.answer import Collected, Shape, collect
from engine.server.openai.checks import check_completion, salted
from engine.server.openai.protocol import CompletionBody, ignored_header, read_body
from engine.server.processors import process
from engine.server.service import Service
from engine.server.sse import EventStream, until_disconnect

DEFAULT_MAX_TOKENS = 16


async def complete(service: Service, request: Request) -> Response:
    """Serve one request."""
    arrival, turn = time.monotonic(), service.take_turn()
    body, ignored = read_body(await read_json(request), CompletionBody)
    model = service.check("completions", body.model)
    check_completion(body)
    answer = await _prepare(service, body, model, arrival, turn)
    service.metrics.ignored(len(ignored))
    service.log_request(request.state.request_id, "completions", answer.generation.job.prompts, answer.params)
    headers = ignored_header(ignored)
    if body.stream:
        return EventStream(answer.stream(), headers)
    whole = await until_disconnect(request, answer.whole())
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


async def _prepare(service: Service, body: CompletionBody, model: str, arrival: float, turn: int) -> CompletionAnswer:
    """Everything that can be refused is refused here, before the answer begins."""
    limits = service.limits
    scoring = body.max_tokens == 0
    asked = DEFAULT_MAX_TOKENS if body.max_tokens is None else max(body.max_tokens, 1) if scoring else body.max_tokens
    params = build_params(body, limits, max_tokens=asked, logprobs=body.logprobs)
    if body.echo and body.logprobs is not None and params.prompt_logprobs is None:
        params = msgspec.structs.replace(params, prompt_logprobs=body.logprobs)
    priority = service.check_priority(body.priority or 0)
    salt = salted(body.cache_salt)
    params = fill_bad_words(params, service.tokenizer, limits)
    params = await process(service, body.logits_processors, params)
    prompts = parse_prompts(body.prompt, limits)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    ids = [
        await service.encoder.encode(prompt, add_special_tokens=special, truncate=params.truncate_prompt_tokens) for prompt in prompts
    ]
    free = params if body.max_tokens is not None and not scoring else msgspec.structs.replace(params, max_tokens=None)
    fitted = [_clipped(fit_context(free, len(prompt), limits, param="prompt"), asked) for prompt in ids]
    fitted = await constrain(service, body, fitted)
    job = Job(
        prompts=ids,
        params=fitted,
        endpoint="completions",
        model=model,
        arrival=arrival,
        turn=turn,
        priority=priority,
        cache_salt=salt,
        scoring=scoring,
        stream=bool(body.stream),
    )
    shape = Shape.of(service, body, params, model, prefix="cmpl-", kind="text_completion")
    texts = _echoes(service, prompts, ids, params) if body.echo else [""] * len(ids)
    return CompletionAnswer(Generation(service, job), shape, params, texts, echo=bool(body.echo), prompt_logprobs=body.prompt_logprobs)


def _clipped(params: SamplingParams, asked: int) -> SamplingParams:
    """A default length never exceeds what is asked; :func:`fit_context` has bounded it by the room that is left."""
    return msgspec.structs.replace(params, max_tokens=min(params.max_tokens or asked, asked))


def _echoes(service: Service, prompts: list[Any], ids: list[list[int]], params: SamplingParams) -> list[str]:
    tokenizer = service.tokenizer
    if tokenizer is None:
        return [""] * len(ids)
    return [
        prompt if isinstance(prompt, str) and params.truncate_prompt_tokens is None else tokenizer.decode(tokens)
        for prompt, tokens in zip(prompts, ids, strict=True)
    ]


class CompletionAnswer:
    """Shapes a generation as completions."""

    def __init__(
        self,
        generation: Generation,
        shape: Shape,
        params: SamplingParams,
        echoes: list[str],
        *,
        echo: bool,
        prompt_logprobs: int | None,
    ) -> None:
        self.generation = generation
        self.params = params
        self._shape = shape
        self._echoes = echoes
        self._echo = echo
        self._prompt_logprobs = prompt_logprobs

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        generation = self.generation
        collected = await collect(generation)
        choices = []
        for prompt in range(len(generation.job.prompts)):
            for place, sequence in enumerate(generation.returned(prompt)):
                choices.append(self._choice(prompt * generation.count + place, prompt, sequence, collected[sequence]))
        return self._shape.envelope(choices, self._shape.usage(generation))

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """The answer in pieces."""
        shape, generation = self._shape, self.generation
        pending = {index: Collected() for index in range(len(generation.choices))}
        begun: set[int] = set()
        async for sequence, delta in generation.events():
            waiting = pending[sequence]
            waiting.add(delta)
            ended = waiting.finish_reason is not None
            if not (waiting.text or ended or (shape.logprobs is not None and waiting.token_ids)):
                continue
            prompt = sequence // generation.width
            offset = generation.choices[sequence].text_length - len(waiting.text)
            yield shape.chunk(self._piece(sequence, prompt, sequence, waiting, sequence not in begun, offset), generation)
            begun.add(sequence)
            pending[sequence] = Collected()
        if shape.usage_at_end:
            yield shape.envelope([], shape.usage(generation))

    def _choice(self, index: int, prompt: int, sequence: int, collected: Collected) -> dict[str, Any]:
        choice = self._piece(index, prompt, sequence, collected, True, 0)
        if self._prompt_logprobs is not None:
            first = self.generation.choices[prompt * self.generation.width]
            choice["prompt_logprobs"] = self._shape.format.prompt(first.prompt_logprobs, self._prompt_logprobs)
        return choice

    def _piece(self, index: int, prompt: int, sequence: int, collected: Collected, first: bool, offset: int) -> dict[str, Any]:
        echoed = self._echo and first
        scoring = self.generation.job.scoring
        text = (self._echoes[prompt] if echoed else "") + ("" if scoring else collected.text)
        logprobs = None
        if self._shape.logprobs is not None:
            ids: list[int] = []
            entries: list[TokenLogprobs | None] = []
            if echoed:
                ids += self.generation.job.prompts[prompt]
                source = sequence if self.generation.job.stream else prompt * self.generation.width
                entries += [None, *self.generation.choices[source].prompt_logprobs]
            if not scoring:
                ids += collected.token_ids
                entries += collected.logprobs
            start = offset + (len(self._echoes[prompt]) if self._echo and not first else 0)
            logprobs = self._shape.format.completion(entries, ids, self._shape.logprobs, start)
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": ("length" if scoring else collected.finish_reason) if collected.finish_reason else None,
            "stop_reason": None if scoring else collected.stop_reason,
        }
