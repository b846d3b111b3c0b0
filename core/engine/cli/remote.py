"""A model behind an OpenAI-compatible server, as ``engine chat --url`` talks to it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.cli.sampling import DEFAULT_TOKENS
from engine.errors import ConfigError, EngineError

_SECONDS = 600.0


class RemoteFailure(EngineError):
    """The server cannot be reached, or refused."""


class Server:
    """A server's address and key. Raises ConfigError for what is no address."""

    def __init__(self, url: str, api_key: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url}: not an http address.", fix=f"--url http://{url}")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})

    def open(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a GET, or to a POST of ``body``. Raises RemoteFailure."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            return urllib.request.urlopen(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            raise RemoteFailure(f"{self.url}{path} answered {error.code}: {_body(error)}", fix=_hint(error.code)) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise RemoteFailure(f"{self.url} does not answer: {reason}.", fix="engine serve MODEL, and its address as --url") from error


def plugin_standings(url: str, api_key: str | None) -> list[dict[str, Any]]:
    """What a server says of its plugins that have failed (``GET /health/plugins``). Raises RemoteFailure."""
    with Server(url, api_key).open("/health/plugins") as answer:
        found: list[dict[str, Any]] = json.load(answer)["plugins"]
    return found


class RemoteModel:
    """One model of a server. ``model`` None takes the first that the server lists."""

    def __init__(self, url: str, api_key: str | None, model: str | None) -> None:
        self._server = Server(url, api_key)
        self._url = self._server.url
        self._open = self._server.open
        self._model = model or self._first_model()

    def answerer(self, own: Mapping[str, Any]) -> Callable[[list[dict[str, Any]]], Iterator[str]]:
        """A function from messages to the pieces of the answer, with the sampling that the flags say."""
        body: dict[str, Any] = {"max_tokens": own["max_tokens"] or DEFAULT_TOKENS}
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        body |= {name: own[name] for name in names if own[name] is not None}
        if own["sampling_seed"] is not None:
            body["seed"] = own["sampling_seed"]
        if own["stop"]:
            body["stop"] = own["stop"]
        if own["template_options"]:
            body["chat_template_kwargs"] = own["template_options"]
        return lambda messages: self._stream(body | {"messages": messages})

    def _first_model(self) -> str:
        with self._open("/v1/models", None) as answer:
            listed = json.load(answer)
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise RemoteFailure(f"{self._url} lists no model.", fix="--model NAME") from error

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        with self._open("/v1/chat/completions", body | {"model": self._model, "stream": True}) as answer:
            for line in answer:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                event = json.loads(line[len(b"data: ") :])
                if "error" in event:
                    raise RemoteFailure(f"{self._url}: {_message(event)}")
                for choice in event.get("choices", []):
                    delta = choice.get("delta", {})
                    yield (delta.get("reasoning_content") or "") + (delta.get("content") or "")


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return _message(json.loads(error.read()))
    except ValueError:
        return str(error.reason)


def _message(answer: Any) -> str:
    found = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(found.get("message", found) if isinstance(found, dict) else found)


def _hint(status: int) -> str | None:
    return {401: "--api-key KEY", 404: "--model NAME, as the server lists it"}.get(status)
