"""Reading a JSON body: bounded, strict, and refused with the position of what is wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from engine.errors import RequestError

#: Largest body. Above it 413, as soon as it is known.
MAX_BODY = 64 * 2**20
MAX_DEPTH = 64

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|-?Infinity|NaN', re.DOTALL)
_INTEGER = re.compile(r'"(?:[^"\\]|\\.)*"|(\d+)', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89abcdefABCDEF]")


async def read_json(request: Request, *, limit: int = MAX_BODY) -> dict[str, Any]:
    """The request's JSON object. Raises RequestError (400, 413, 415)."""
    check_headers(request.headers)
    body = await read_bytes(request, limit)
    value = parse(body)
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return value


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse other content types than JSON, and encoded bodies."""
    media = headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise RequestError(f"The content type must be application/json, not {media[:80] or 'absent'}.", http_status=415)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError(f"Encoded bodies are not accepted (content-encoding: {encoding[:40]}).", http_status=415)


async def read_bytes(request: Request, limit: int) -> bytes:
    """The whole body, refused (413) as soon as it exceeds ``limit`` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect as error:
        raise RequestError("The connection ended before the body did.", http_status=400) from error
    return bytes(body)


def parse(body: bytes) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or Infinity, no lone surrogates, nothing after the value."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"The body is not UTF-8: byte {error.start} (0x{body[error.start]:02x}).", code="invalid_json") from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos}).", code="invalid_json"
        ) from error
    except (_DuplicateKey, _Constant) as error:
        _refuse_at(text, error)
    except RecursionError as error:
        raise RequestError(f"The body is not JSON that can be read: {error}.", code="invalid_json") from error
    except ValueError as error:
        # The one that is left: Python reads integers of so many digits only.
        most = sys.get_int_max_str_digits()
        at = next((found.start(1) for found in _INTEGER.finditer(text) if len(found[1] or "") > most), 0)
        raise RequestError(f"The body holds an integer of more than {most} digits (character {at}).", code="invalid_json") from error
    if _SURROGATE.search(text):
        _check_surrogates(value, text)
    return value


class _DuplicateKey(Exception):
    pass


class _Constant(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Constant(name)


def _refuse_at(text: str, error: Exception) -> NoReturn:
    """Find what json's hooks cannot place: the second of two equal keys, or a constant that JSON does not have."""
    keys: list[set[str]] = []
    expecting: list[bool] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("NaN", "Infinity", "-Infinity"):
            raise RequestError(f"The body is not JSON: {token} at character {match.start()}.", code="invalid_json") from error
        if token in ("{", "["):
            keys.append(set())
            expecting.append(token == "{")
        elif token in ("}", "]"):
            keys.pop()
            expecting.pop()
        elif token == "," and expecting:
            # A key follows an object's comma; a list has no keys.
            expecting[-1] = bool(keys[-1])
        elif token == ":" or not expecting:
            continue
        elif token.startswith('"') and expecting[-1]:
            key = json.loads(token)
            if key in keys[-1]:
                raise RequestError(f"The body has the key {key[:80]!r} twice (character {match.start()}).", code="invalid_json") from error
            keys[-1].add(key)
            expecting[-1] = False
    raise RequestError(f"The body is not JSON that can be read: {error}.", code="invalid_json") from error


def _check_depth(text: str) -> None:
    depth = 0
    for match in _TOKEN.finditer(text):
        if match[0] in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                cause = f"The body is nested deeper than {MAX_DEPTH} levels (character {match.start()})."
                raise RequestError(cause, code="invalid_json")
        elif match[0] in ("]", "}"):
            depth -= 1


def _check_surrogates(value: Any, text: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        match = _SURROGATE.search(text)
        at = match.start() if match else 0
        cause = f"The body holds half of a surrogate pair, which is no character (character {at} or later)."
        raise RequestError(cause, code="invalid_json") from error


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The body is larger than {limit} bytes.", http_status=413, code="body_too_large")
