"""One request to an OpenAI-compatible server, and what its stream tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.cli.bench.http import HttpFailure, Target, fetch, opened
from engine.cli.bench.loads import Sizes

ENDPOINTS = ("completions", "chat")


@dataclass
class Measured:
    """One request. Times are seconds of one clock; ``moments``: when pieces of text came, the first token's first.

    ``input_tokens`` and ``output_tokens`` are the server's own counts (``usage``); without them output is counted in pieces.
    """

    sent: float
    wanted: Sizes
    moments: list[float] = field(default_factory=list)
    ended: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None

    @property
    def ttft(self) -> float:
        """Seconds to the first piece."""
        return self.moments[0] - self.sent

    @property
    def e2e(self) -> float:
        """Seconds to the end."""
        return self.ended - self.sent

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first; None where there is one only."""
        if self.output_tokens < 2:
            return None
        return (self.moments[-1] - self.moments[0]) / (self.output_tokens - 1)

    @property
    def itl(self) -> list[float]:
        """Seconds between pieces."""
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]


class Server:
    """An OpenAI-compatible server and one model of it. ``ids``: prompts are token ids (completions only), else text."""

    def __init__(self, target: Target, model: str, endpoint: str, extra: dict[str, Any], timeout: float) -> None:
        self.target = target
        self.model = model
        self.endpoint = endpoint
        self.ordinary: list[int] = []
        self.tokens_per_word = 1.0
        self._extra = extra
        self._timeout = timeout

    async def send(self, prompt: Sequence[int] | str, wanted: Sizes) -> Measured:
        """Send it now and read its stream to the end; a failure is in the result, not raised."""
        measured = Measured(time.perf_counter(), wanted)
        try:
            async with asyncio.timeout(self._timeout):
                await self._stream(measured, msgspec.json.encode(self._body(prompt, wanted)))
        except TimeoutError:
            measured.error = f"no end within {self._timeout:g} s"
        except HttpFailure as failure:
            measured.error = str(failure)
        measured.ended = measured.ended or time.perf_counter()
        if measured.error is None and not measured.moments:
            measured.error = "the answer held no text"
        return measured

    def _body(self, prompt: Sequence[int] | str, wanted: Sizes) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "max_tokens": wanted.output, "temperature": 0.0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        return body | self._extra

    async def _stream(self, measured: Measured, body: bytes) -> None:
        path = "/v1/chat/completions" if self.endpoint == "chat" else "/v1/completions"
        async with opened(self.target, "POST", path, body) as answer:
            if answer.status != 200:
                measured.error = f"status {answer.status}: {error_text(b''.join([piece async for piece in answer.pieces()]))}"
                return
            async for data in answer.events():
                now = time.perf_counter()
                if data == b"[DONE]":
                    break
                self._take(measured, msgspec.json.decode(data), now)
            measured.ended = time.perf_counter()
        measured.output_tokens = measured.output_tokens or len(measured.moments)

    def _take(self, measured: Measured, event: dict[str, Any], now: float) -> None:
        if "error" in event:
            measured.error = error_text(msgspec.json.encode(event))
            return
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice
            if delta.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                measured.moments.append(now)
        if usage := event.get("usage"):
            measured.input_tokens = usage.get("prompt_tokens") or 0
            measured.output_tokens = usage.get("completion_tokens") or 0


async def first_model(target: Target) -> str:
    """The first model that the server lists. Raises HttpFailure."""
    status, body = await fetch(target, "GET", "/v1/models")
    try:
        return str(msgspec.json.decode(body)["data"][0]["id"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        raise HttpFailure(f"{target.url} lists no model (status {status}).", fix="--model NAME") from error


async def tokenize(target: Target, model: str, text: str) -> list[int] | None:
    """Ids of a text from the server's ``/tokenize``; None where it has none that answers with a list of ids."""
    status, body = await fetch(target, "POST", "/tokenize", msgspec.json.encode({"model": model, "prompt": text, "content": text}))
    if status != 200:
        return None
    try:
        return msgspec.convert(msgspec.json.decode(body)["tokens"], list[int])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError):
        return None


def error_text(body: bytes) -> str:
    """What an error answer says, in one line."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:200].decode("utf-8", "replace").strip()
    found = found.get("error", found) if isinstance(found, dict) else found
    return str(found.get("message", found) if isinstance(found, dict) else found)[:300]
