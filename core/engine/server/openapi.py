"""The OpenAPI document: what the routes take, from the very types that read their bodies."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from engine.server.messages.protocol import CountBody, MessagesBody
from engine.server.openai.protocol import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from engine.server.responses.protocol import ResponsesBody

BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/completions": CompletionBody, "/v1/chat/completions": ChatBody, "/v1/responses": ResponsesBody, "/v1/messages": MessagesBody,
    "/v1/messages/count_tokens": CountBody, "/tokenize": TokenizeBody, "/detokenize": DetokenizeBody,
}  # fmt: skip
#: What any POST with a body may answer, beside 200.
REFUSALS = {
    "400": "The request is wrong; the error names the field.", "401": "The API key is missing or wrong.",
    "404": "The model is not served.", "408": "The request came too slowly.", "413": "The body is too large.",
    "415": "The content type is not application/json.", "429": "Too much waits already; see Retry-After.",
    "500": "The server failed on this request.", "503": "The engine does not serve; see Retry-After.",
}  # fmt: skip
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type"],
        }
    },
    "required": ["error"],
}  # fmt: skip


#: Fields that are read by hand, and what they take.
_PROMPT = {
    "anyOf": [
        {"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}  # fmt: skip
_MESSAGES = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array", "null"]}},
        "required": ["role"],
    },
}


def describe_bodies(app: FastAPI) -> None:
    """Let the application's document, made when it is first asked for, have the bodies of POST routes and their refusals."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _complete(found)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(found: dict[str, Any]) -> None:
    references, parts = msgspec.json.schema_components(list(BODIES.values()), ref_template="#/components/schemas/{name}")
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(parts, Error=_ERROR)
    schemas["CompletionBody"]["properties"]["prompt"] = _PROMPT
    for name in ("ChatBody", "MessagesBody"):
        schemas[name]["properties"]["messages"] = _MESSAGES
    refused = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for path, reference in zip(BODIES, references, strict=True):
        operation = found["paths"][path]["post"]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
        operation["responses"].pop("422", None)
        for status, about in REFUSALS.items():
            operation["responses"][status] = {"description": about, **refused}
