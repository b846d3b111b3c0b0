"""Error answers: one body shape for every failure, with the headers that clients act on."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from engine.errors import EngineError, PluginFault, RequestError, WorkerDied, advised

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
#: Routes at and below it speak the Messages API, which has error types of its own.
MESSAGES_PATH = "/v1/messages"
MESSAGES_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error",
}  # fmt: skip
#: Statuses that a later attempt may get past.
RETRY = frozenset({408, 409, 429, 503})
RETRY_AFTER = "5"


def error_object(message: str, status: int, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer, and of an error inside a stream."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"object": "error", "error": {"message": message, "type": kind, "param": param, "code": code or str(status)}}


def in_messages_shape(described: dict[str, Any], status: int) -> dict[str, Any]:
    """An error object as clients of the Messages API read it."""
    kind = MESSAGES_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": described["error"]["message"]}}


def speaks_messages(path: str) -> bool:
    """Whether a route speaks the Messages API."""
    return path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/")


def error_response(
    message: str, status: int, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None, path: str = ""
) -> Response:
    """An error as JSON, in the shape of the route at ``path``; says whether a retry can help."""
    sent = dict(headers or {})
    if status in RETRY:
        sent.setdefault("retry-after", RETRY_AFTER)
    else:
        sent["x-should-retry"] = "false"
    described = error_object(message, status, param=param, code=code)
    if speaks_messages(path):
        described = in_messages_shape(described, status)
    return Response(msgspec.json.encode(described), status, sent, media_type="application/json")


def describe(error: EngineError) -> tuple[dict[str, Any], int]:
    """The error object and status of an engine failure."""
    if isinstance(error, RequestError):
        return error_object(advised(str(error), error.fix), error.http_status, param=error.param, code=error.code), error.http_status
    if isinstance(error, PluginFault):
        described = error_object(str(error), 500, code="plugin_error")
        described["error"]["type"] = "plugin_error"
        return described, 500
    status = 503 if isinstance(error, WorkerDied) else 500
    return error_object(str(error), status, code="engine_error"), status


def engine_response(error: EngineError, path: str = "") -> Response:
    """The answer to a request at ``path`` that ended with an engine failure."""
    described, status = describe(error)
    if isinstance(error, PluginFault) and not speaks_messages(path):
        return Response(msgspec.json.encode(described), status, {"x-should-retry": "false"}, media_type="application/json")
    inner = described["error"]
    after = error.retry_after if isinstance(error, RequestError) else None
    headers = {"retry-after": str(after)} if after is not None else None
    return error_response(inner["message"], status, param=inner["param"], code=inner["code"], headers=headers, path=path)
