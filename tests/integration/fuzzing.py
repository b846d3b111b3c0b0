"""A grammar of wrong requests: sound ones, changed in fields, bytes, headers, methods and paths; and a client that sends them raw."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import random
from collections import Counter
from typing import Any, NamedTuple

KEY = "fuzz-key"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
USER = {"role": "user", "content": "Hi"}
SOUND: dict[str, list[dict[str, Any]]] = {
    "/v1/completions": [
        {"prompt": "Hi", "max_tokens": 2},
        {"prompt": [1, 2, 3], "max_tokens": 2, "temperature": 0.5, "seed": 1, "logprobs": 2, "n": 2},
        {"prompt": ["a", "b"], "max_tokens": 2, "stop": ["x"], "echo": True, "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": "Hi", "max_tokens": 2, "logit_bias": {"5": 1}, "allowed_token_ids": [5, 6], "bad_words": ["a"], "stop_token_ids": [9]},
        {"prompt": "Hi", "max_tokens": 3, "guided_regex": "[a-c]+", "min_tokens": 1, "ignore_eos": True, "top_k": 3, "min_p": 0.1},
        {"prompt": "Hi", "max_tokens": 2, "prompt_logprobs": 1, "best_of": 2, "cache_salt": "s", "request_id": "r", "user": "u"},
    ],
    "/v1/chat/completions": [
        {"messages": [USER], "max_tokens": 2},
        {"messages": [{"role": "system", "content": "s"}, USER], "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "stream": True},
        {"messages": [USER], "max_tokens": 2, "tools": [TOOL], "tool_choice": "none", "chat_template_kwargs": {"x": 1}},
        {"messages": [USER], "max_tokens": 3, "response_format": {"type": "json_object"}, "frequency_penalty": 0.5},
        {"messages": [USER], "max_tokens": 3, "guided_json": SCHEMA, "guided_decoding_backend": "xgrammar"},
    ],
    "/v1/responses": [{"input": "Hi", "max_output_tokens": 2}, {"input": [{"role": "user", "content": "Hi"}], "max_output_tokens": 2}],
    "/v1/messages": [{"messages": [USER], "max_tokens": 2}, {"messages": [USER], "max_tokens": 2, "stream": True, "system": "s"}],
    "/v1/messages/count_tokens": [{"messages": [USER]}],
    "/tokenize": [{"prompt": "Hi"}, {"messages": [USER]}],
    "/detokenize": [{"tokens": [1, 2]}],
}
READ = [
    "/v1/models", "/v1/models/demo", "/health", "/health/live", "/version", "/load", "/metrics", "/tokenizer_info", "/ui", "/openapi.json",
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 2047, 2048, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308, "", "a", "\x00",
    "\n", "é", "😀", "<|im_start|>", "a" * 300, "../../etc/passwd", "{{ 7*7 }}", "%s%n", "(a+)+$", "(?<=a)b", [], {}, [[]], [None], [{}],
    [1, "a"], {"": ""}, {"type": "x"}, {"a": {"b": {"c": [1]}}}, [0] * 50, ["a"] * 20, [2**40], [-1], "2", "nan", {"$ref": "#"},
    {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}, {"role": "user"}, "root ::= root",
]  # fmt: skip
NAMES = [
    "model", "n", "best_of", "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids",
    "logit_bias", "logprobs", "top_logprobs", "prompt_logprobs", "allowed_token_ids", "bad_words", "presence_penalty", "priority",
    "frequency_penalty", "repetition_penalty", "stream", "stream_options", "echo", "suffix", "user", "tools", "tool_choice",
    "response_format",
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_whitespace_pattern", "structured_outputs", "chat_template",
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "documents", "logits_processors", "thinking_budget",
    "truncate_prompt_tokens", "request_id", "cache_salt", "messages", "prompt", "input", "instructions", "tokens", "reasoning_effort",
    "length_penalty", "use_beam_search", "skip_special_tokens", "ignore_eos", "mm_processor_kwargs", "unknown_field", "__proto__",
]  # fmt: skip


class Shot(NamedTuple):
    """A request as its bytes. ``whole``: it is sound HTTP, so that an answer is due."""

    data: bytes
    whole: bool
    method: str = "POST"


def shot(dice: random.Random) -> Shot:
    """A request."""
    path = dice.choice(list(SOUND))
    kind = dice.random()
    if kind < 0.06:
        return http("GET" if dice.random() < 0.7 else dice.choice(["PUT", "DELETE", "OPTIONS", "BREW", "POST"]), dice.choice(READ), b"", {})
    body = changed(dice, dice.choice(SOUND[path]))
    data = json.dumps(body, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind < 0.16:
        data = damaged(dice, data)
    if kind > 0.92:
        path = odd_path(dice, path)
    headers = odd_headers(dice) if 0.86 < kind < 0.92 else {}
    made = http("POST", path, data, headers)
    return Shot(damaged(dice, made.data), whole=False) if 0.16 < kind < 0.2 else made


def changed(dice: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    """One to three changes, at the top or deeper."""
    found: dict[str, Any] = json.loads(json.dumps(body))
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        place: Any = found
        while dice.random() < 0.35:
            inner = [value for value in (place.values() if isinstance(place, dict) else place) if isinstance(value, dict | list) and value]
            if not inner:
                break
            place = dice.choice(inner)
        if isinstance(place, list):
            place[dice.randrange(len(place))] = copy.deepcopy(dice.choice(ODD))
        elif dice.random() < 0.15 and len(place) > 1:
            del place[dice.choice(list(place))]
        else:
            name = dice.choice([*place, *NAMES] if place is found else list(place) or ["x"])
            place[name] = copy.deepcopy(dice.choice(ODD))
    return found


def damaged(dice: random.Random, data: bytes) -> bytes:
    """Bytes cut, doubled, turned round or replaced."""
    at = dice.randrange(len(data) + 1)
    odd = dice.choice([b"\xff", b"\x00", b"\\ud800", b"{" * 200, b'"', b"NaN", b",", b"\r\n", b"[" * 70, b"\xef\xbb\xbf", b"1e999"])
    return dice.choice([data[:at], data[:at] + odd + data[at:], data[:at] + odd + data[at + 1 :], data + data[at:], data[at:] + data[:at]])


def odd_path(dice: random.Random, path: str) -> str:
    """The path, written otherwise."""
    return dice.choice(
        ["/" + path, path + "/", path.upper(), path.replace("/", "//"), path + "?a=1&b=%ff", "/health/.." + path, path.replace("o", "%6f"),
         path + "/%00", "/v1/responses/resp_1/cancel", "/v1/models/%2e%2e", path + "#x", "http://evil.example" + path, path + "x" * 3000]
    )  # fmt: skip


def odd_headers(dice: random.Random) -> dict[str, str]:
    """Headers that a request should not have."""
    return dice.choice(
        [{"content-type": "text/plain"}, {"content-type": "application/json; charset=utf-16"}, {"content-encoding": "gzip"},
         {"x-request-id": "a\tb"}, {"x-request-id": "x" * 5000}, {"authorization": "Bearer"}, {"authorization": "Basic ????"},
         {"accept": "image/png"}, {"origin": "http://evil.example"}, {"host": ""}, {"expect": "100-continue"}, {"cookie": "x" * 9000},
         {"connection": "upgrade", "upgrade": "websocket"}, {"transfer-encoding": "chunked"}, {"range": "bytes=0-"}]
    )  # fmt: skip


def http(method: str, path: str, body: bytes, headers: dict[str, str]) -> Shot:
    """The request with the key, unless ``headers`` say otherwise."""
    sent = {"host": "x", "content-type": "application/json", "authorization": f"Bearer {KEY}", **headers}
    if "transfer-encoding" in sent:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        sent["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return Shot(f"{method} {path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode() + body, whole=True, method=method)


class Fuzzer:
    """Sends shots from several connections at once. ``statuses`` counts answers; ``wrong`` holds requests whose answer must not be."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self.port, self.dice = port, dice
        self.statuses: Counter[str] = Counter()
        self.wrong: list[tuple[bytes, bytes]] = []
        self._left = 0

    async def fire(self, count: int, together: int = 16) -> None:
        """Send ``count`` requests."""
        self._left = count
        await asyncio.gather(*(self._repeat() for _ in range(together)))

    async def _repeat(self) -> None:
        while self._left > 0:
            self._left -= 1
            one = shot(self.dice)
            try:
                async with asyncio.timeout(120):
                    answer = await self._exchange(one)
            except TimeoutError:
                self.wrong.append((one.data, b"no end of the answer"))
                continue
            self._judge(one, answer)

    async def _exchange(self, one: Shot) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        with contextlib.suppress(ConnectionError):
            writer.write(one.data)
            if not one.whole:
                # It may promise bytes that never come; without an end of ours the server would wait for them.
                writer.write_eof()
            while piece := await reader.read(65536):
                answer += piece
        writer.close()
        return answer

    def _judge(self, one: Shot, answer: bytes) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100 "):
            head, _, body = body.partition(b"\r\n\r\n")
        status = head[9:12].decode("latin-1") if head.startswith(b"HTTP/1.1 ") else "none"
        self.statuses[status] += 1
        sound = status == "none" and not one.whole
        if status != "none":
            error = status < "400" or (b'"error"' in body and b"Traceback" not in body)
            sound = status < "500" and error and b"x-request-id: " in head.lower()
        if not sound:
            self.wrong.append((one.data, answer[:2000]))
