"""Bad requests and their due: one row per case, as a client would send it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

KEY = "audit-key"
CONTEXT = 512
VOCABULARY = 2048
COMPLETIONS, CHAT, TOKENIZE = "/v1/completions", "/v1/chat/completions", "/tokenize"
USER = {"role": "user", "content": "Hi"}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


class Case(NamedTuple):
    """``row``: of the robustness table; ``param``: the field that the error names; ``headers`` None: JSON with the key."""

    row: int
    name: str
    status: int
    param: str | None = None
    path: str = COMPLETIONS
    body: bytes | None = None
    method: str = "POST"
    headers: dict[str, str] | None = None

    @property
    def label(self) -> str:
        return f"{self.row}-{self.name}".replace(" ", "-")


def completion(row: int, name: str, status: int, param: str | None = None, **fields: Any) -> Case:
    return Case(row, name, status, param, body=json.dumps({"prompt": "Hi", "max_tokens": 2, **fields}).encode())


def chat(row: int, name: str, status: int, param: str | None = None, **fields: Any) -> Case:
    return Case(row, name, status, param, CHAT, json.dumps({"messages": [USER], "max_tokens": 2, **fields}).encode())


def raw(row: int, name: str, body: bytes, param: str | None = None) -> Case:
    return Case(row, name, 400, param, body=body)


def route(row: int, name: str, status: int, method: str, path: str, **headers: str) -> Case:
    body = b'{"prompt": "Hi", "max_tokens": 1}' if method == "POST" else None
    return Case(row, name, status, None, path, body, method, headers)


def rows() -> Iterator[Case]:
    """All cases, by row."""
    yield from _encoding()
    yield from _routes()
    yield from _numbers()
    yield from _sets()
    yield from _prompts()


def _encoding() -> Iterator[Case]:
    yield raw(8, "malformed JSON", b'{"prompt": "a",}')
    yield raw(8, "trailing garbage", b'{"prompt": "a"} x')
    yield raw(8, "NaN", b'{"prompt": "a", "temperature": NaN}')
    yield raw(8, "Infinity", b'{"prompt": "a", "temperature": Infinity}')
    yield raw(8, "duplicate key", b'{"prompt": "a", "n": 1, "n": 2}')
    yield raw(8, "10000 levels", b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}")
    yield raw(9, "invalid UTF-8", b'{"prompt": "\xff"}')
    yield raw(9, "lone surrogate", b'{"prompt": "a\\ud800b"}')
    yield completion(10, "NUL in the prompt", 200, prompt="a\x00b\x1b")
    yield completion(10, "control characters in user", 400, "user", user="a\nb")
    yield completion(10, "control characters in model", 400, "model", model="demo\x00")
    yield completion(10, "control characters in an id", 400, "request_id", request_id="a\r\nx: y")


def _routes() -> Iterator[Case]:
    bearer = {"authorization": f"Bearer {KEY}"}
    yield route(11, "content type", 415, "POST", COMPLETIONS, **bearer, **{"content-type": "text/plain"})
    yield route(11, "GET on a POST route", 405, "GET", COMPLETIONS, **bearer)
    yield route(11, "unknown path", 404, "GET", "/v1/nothing", **bearer)
    yield route(12, "wrong key", 401, "POST", COMPLETIONS, authorization="Bearer wrong")
    yield route(12, "no key", 401, "GET", "/v1/models")
    yield route(12, "no key and another host", 401, "GET", "/v1/models", host="evil/health")
    yield route(13, "double slash", 401, "GET", "//v1/models")
    yield route(13, "double slash with the key", 404, "GET", "//v1/models", **bearer)
    yield route(13, "encoded dots", 401, "GET", "/health/%2e%2e/v1/models")
    yield route(14, "unknown method", 405, "BREW", COMPLETIONS, **bearer)
    yield route(14, "PATCH", 405, "PATCH", "/health", **bearer)


def _numbers() -> Iterator[Case]:
    yield completion(16, "n of 10^9", 400, "n", n=10**9)
    yield completion(16, "best_of of 10^9", 400, "best_of", best_of=10**9)
    yield completion(16, "beams", 400, "use_beam_search", use_beam_search=True, n=10**6)
    yield completion(17, "max_tokens 0", 400, "max_tokens", max_tokens=0)
    yield completion(17, "max_tokens 0 with echo", 200, max_tokens=0, echo=True)
    yield completion(17, "max_tokens negative", 400, "max_tokens", max_tokens=-5)
    yield completion(17, "max_tokens 2^63", 400, "max_tokens", max_tokens=2**63)
    yield completion(17, "max_tokens float", 400, "max_tokens", max_tokens=1.5)
    yield completion(17, "max_tokens text", 400, "max_tokens", max_tokens="many")
    yield completion(17, "max_tokens above the context", 400, "prompt", max_tokens=CONTEXT + 1)
    yield completion(18, "temperature", 400, "temperature", temperature=-1)
    yield raw(18, "temperature 1e309", b'{"prompt": "a", "temperature": 1e309}', "temperature")
    yield completion(18, "top_p", 400, "top_p", top_p=1.5)
    yield completion(18, "top_k", 400, "top_k", top_k=-5)
    yield completion(18, "min_p", 400, "min_p", min_p=-0.1)
    yield completion(18, "presence_penalty", 400, "presence_penalty", presence_penalty=3)
    yield completion(18, "frequency_penalty", 400, "frequency_penalty", frequency_penalty=-3)
    yield completion(18, "repetition_penalty", 400, "repetition_penalty", repetition_penalty=0)
    yield completion(19, "seed 2^63", 400, "seed", seed=2**63)
    yield completion(19, "seed of int64", 200, seed=-(2**63))
    yield completion(20, "10^5 stops", 400, "stop", stop=["x"] * 10**5)
    yield completion(20, "empty stop", 400, "stop", stop=[""])
    yield completion(20, "stop of 1 MB", 400, "stop", stop="x" * 2**20)
    yield completion(20, "six stops", 200, stop=list("uvwxyz"))


def _sets() -> Iterator[Case]:
    yield completion(21, "logit_bias outside", 400, "logit_bias", logit_bias={str(VOCABULARY): 1})
    yield completion(21, "logit_bias key", 400, "logit_bias", logit_bias={"word": 1})
    yield completion(21, "logit_bias of 10^6", 400, "logit_bias", logit_bias={str(n): 1 for n in range(10**6)})
    yield completion(22, "allowed_token_ids outside", 400, "allowed_token_ids", allowed_token_ids=[VOCABULARY])
    yield completion(22, "allowed_token_ids negative", 400, "allowed_token_ids", allowed_token_ids=[-1])
    yield completion(22, "nothing left to choose", 400, allowed_token_ids=[5], stop_token_ids=[5], min_tokens=1)
    yield completion(22, "bad_words empty", 400, "bad_words", bad_words=[""])
    yield completion(23, "logprobs above", 400, "logprobs", logprobs=21)
    yield completion(23, "logprobs negative", 400, "logprobs", logprobs=-1)
    yield completion(23, "prompt_logprobs above", 400, "prompt_logprobs", prompt_logprobs=10**9)
    yield chat(23, "top_logprobs above", 400, "top_logprobs", logprobs=True, top_logprobs=21)
    yield completion(24, "stop_token_ids outside", 400, "stop_token_ids", stop_token_ids=[10**12])
    yield completion(24, "min_tokens", 400, "min_tokens", min_tokens=3, max_tokens=2)
    yield completion(31, "odd cache_salt", 200, cache_salt="\x00\x7f\u2028😀")
    yield completion(31, "long cache_salt", 400, "cache_salt", cache_salt="x" * 10**6)


def _prompts() -> Iterator[Case]:
    yield completion(25, "ids outside", 400, "prompt", prompt=[1, VOCABULARY])
    yield completion(25, "negative ids", 400, "prompt", prompt=[-1])
    yield completion(25, "nested ids", 400, "prompt", prompt=[[[1]]])
    yield completion(25, "empty list", 400, "prompt", prompt=[])
    yield completion(25, "list of an empty list", 400, "prompt", prompt=[[]])
    yield chat(26, "no messages", 400, "messages", messages=[])
    yield chat(26, "null content", 400, "messages[0].content", messages=[{"role": "user", "content": None}])
    yield chat(26, "unknown role", 400, "messages[0].role", messages=[{"role": "wizard", "content": "x"}])
    yield chat(26, "tool without id", 400, "messages[1].tool_call_id", messages=[USER, {"role": "tool", "content": "x"}])
    tool = {"role": "tool", "content": "x", "tool_call_id": "c1"}
    yield chat(26, "null content with calls", 200, messages=[USER, CALLING, tool])
    yield completion(27, "50 MB of text", 400, "prompt", prompt="word " * 10**7)
    yield completion(28, "1 MB without spaces", 400, "prompt", prompt="a" * 2**20)
    yield Case(28, "1 MB to tokenize", 400, "prompt", TOKENIZE, json.dumps({"prompt": "a" * 2**20}).encode())
    yield completion(78, "unknown model", 404, "model", model="other")
