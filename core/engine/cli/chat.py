"""``engine chat``: talk to a model in the terminal, started here or served elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.args.flag import Flag
from engine.cli.sampling import SAMPLING, sampling_params
from engine.cli.start import Command, open_model

COMMAND = Command(
    "chat", "engine chat MODEL [flags]   (or: engine chat --url http://127.0.0.1:8000)",
    "Talk to a model; an empty line or end of input ends the conversation.",
    own=(
        Flag("--message", "each", [], "Say this and end after the answer. Repeatable: one turn each.", metavar="TEXT"),
        Flag("--system", "str", None, "System message.", metavar="TEXT"),
        Flag("--url", "str", None, "Talk to this server instead of starting a model.", metavar="URL"),
        Flag("--api-key", "str", None, "Key for that server.", metavar="KEY"),
        Flag("--template-options", "json", None, "Arguments of the chat template, such as {\"enable_thinking\": false}."),
        *SAMPLING,
    ),
)  # fmt: skip

Messages = list[dict[str, Any]]
Answer = Callable[[Messages], Iterator[str]]


def run(argv: list[str]) -> int:
    """Hold a conversation."""
    line = COMMAND.read(argv, needs_model=not any(word.split("=")[0] == "--url" for word in argv))
    if line is None:
        return 0
    own = line.own
    if own["url"]:
        from engine.cli.remote import RemoteModel

        model = line.args.model if "model" in line.args.given else None
        remote = RemoteModel(own["url"], own["api_key"], model)
        converse(remote.answerer(own), own["system"], own["message"])
        return 0
    with open_model(COMMAND, line) as llm:
        params = sampling_params(llm.get_default_sampling_params(), own)
        options = own["template_options"] or {}
        converse(lambda messages: llm.stream(messages, params, **options), own["system"], own["message"])
    return 0


def converse(answer: Answer, system: str | None, given: Iterable[str]) -> None:
    """Ask and answer in turns, from ``given`` or else from the terminal; every answer stays in the context."""
    messages: Messages = [{"role": "system", "content": system}] if system is not None else []
    for text in given or _asked():
        messages.append({"role": "user", "content": text})
        pieces = []
        for piece in answer(messages):
            pieces.append(piece)
            print(piece, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": "".join(pieces)})


def _asked() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            text = input(prompt)
        except EOFError:
            return
        if not text.strip():
            return
        yield text
