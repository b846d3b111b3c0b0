"""POST /tokenize and /detokenize, GET /tokenizer_info."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from engine.errors import RequestError
from engine.plugin.contracts.text import Tokenizer
from engine.render.params import check_token_ids
from engine.server.body import read_json
from engine.server.health import as_json
from engine.server.openai.chat import conversation_of
from engine.server.openai.checks import check_tools
from engine.server.openai.protocol import DetokenizeBody, TokenizeBody, ignored_header, read_body
from engine.server.service import Service


async def tokenize(service: Service, request: Request) -> Response:
    """Token ids of a prompt or a conversation."""
    body, ignored = read_body(await read_json(request), TokenizeBody)
    _check_model(service, body.model)
    tokenizer = _tokenizer(service)
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("Give exactly one of prompt and messages.", param="prompt")
    if body.messages is not None:
        check_tools(body.tools)
        tokens = await service.renderer.encode(conversation_of(body))
    else:
        special = True if body.add_special_tokens is None else body.add_special_tokens
        tokens = await service.encoder.encode_text(body.prompt or "", add_special_tokens=special)
    answer: dict[str, Any] = {"count": len(tokens), "max_model_len": service.limits.max_model_len, "tokens": tokens}
    if body.return_token_strs:
        answer["token_strs"] = [tokenizer.token_text(token) for token in tokens]
    return _with_headers(as_json(answer), ignored)


async def detokenize(service: Service, request: Request) -> Response:
    """The text of token ids, special tokens included."""
    body, ignored = read_body(await read_json(request), DetokenizeBody)
    _check_model(service, body.model)
    check_token_ids("tokens", body.tokens, service.limits)
    text = _tokenizer(service).decode(body.tokens, skip_special_tokens=False)
    return _with_headers(as_json({"prompt": text}), ignored)


async def tokenizer_info(service: Service, request: Request) -> Response:
    """Special tokens and the chat template, for evaluation harnesses."""
    tokenizer = _tokenizer(service)
    special = tokenizer.special_tokens()
    tokens = {"bos_token": tokenizer.bos_token_id, "eos_token": tokenizer.eos_token_id}
    named = {name: special.get(name) or (tokenizer.token_text(token) if token is not None else None) for name, token in tokens.items()}
    template = service.carried_template
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return as_json({**special, **named, "chat_template": template, "vocab_size": tokenizer.size()})


def _check_model(service: Service, model: str | None) -> None:
    service.check(next(iter(sorted(service.endpoints))), model)


def _tokenizer(service: Service) -> Tokenizer:
    if service.tokenizer is None:
        raise RequestError("This server runs without a tokenizer (--skip-tokenizer-init).")
    return service.tokenizer


def _with_headers(response: Response, ignored: list[str]) -> Response:
    response.headers.update(ignored_header(ignored))
    return response
