"""A server whose every plugin misbehaves in some requests: they fail as the table says, and nobody else notices."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.plugin.testing.server import EngineServer
from tests.contract.run_time import FAULTS, LONG, SHORT, Fault

CHAOS = Path(__file__).parent / "chaos"
NAMES = {
    "logits_processor": "chaos_processor", "guided_decoding": "chaos_guide", "reasoning_parser": "chaos_reasoning",
    "tool_parser": "chaos_tools", "tokenizer": "chaos_tokenizer", "tokenizer_pool": "chaos_pool", "policy": "chaos_policy",
    "extension": "chaos_extension",
}  # fmt: skip
FLAGS = (
    "--scheduling-policy", "chaos_policy", "--reasoning-parser", "chaos_reasoning", "--tool-call-parser", "chaos_tools",
    "--enable-auto-tool-choice", "--tokenizer-mode", "chaos_tokenizer", "--tokenizer-pool-size", "1", "--tokenizer-pool-type",
    "chaos_pool", "--extensions", "chaos_extension", "--device", "cpu",
)  # fmt: skip
NEIGHBOUR = SHORT | {"prompt": "Once upon a time", "max_tokens": 100, "stream": True}


def start(place: Path) -> EngineServer:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CHAOS))
        patch.setenv("ENGINE_PLUGIN_TIMEOUT", "0.7")
        plugins = [word for name in NAMES.values() for word in ("--plugin", str(CHAOS / f"{name}.py"))]
        running = EngineServer(place / "log", ("demo", *FLAGS, *plugins))
    running.wait()
    return running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    running = start(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


def ask(server: EngineServer, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any], Any]:
    """Status, JSON and headers of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=150) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


class Neighbour(threading.Thread):
    """A greedy stream beside the request that fails."""

    def __init__(self, server: EngineServer) -> None:
        super().__init__()
        self.url, self.text, self.begun = server.url, "", threading.Event()

    def run(self) -> None:
        body = json.dumps(NEIGHBOUR).encode()
        request = urllib.request.Request(self.url + "/v1/completions", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                for line in answer:
                    if line.startswith(b"data: {"):
                        self.text += json.loads(line[6:])["choices"][0]["text"]
                        self.begun.set()
        finally:
            self.begun.set()


@pytest.fixture(scope="module")
def undisturbed(server: EngineServer) -> str:
    alone = Neighbour(server)
    alone.start()
    alone.join()
    assert len(alone.text) > 100
    return alone.text


def sound(kind: str) -> tuple[str, dict[str, Any] | None]:
    """A request that the kind's plugin serves well."""
    tool = {"type": "function", "function": {"name": "f", "description": "fine", "parameters": {"type": "object"}}}
    chat = SHORT | {"messages": [{"role": "user", "content": "Hello"}]}
    plain = SHORT | {"prompt": "Hello"}
    found: dict[str, tuple[str, dict[str, Any] | None]] = {
        "logits_processor": ("/v1/completions", plain | {"logits_processors": ["chaos_processor"]}),
        "guided_decoding": ("/v1/completions", plain | {"guided_choice": ["fine"], "guided_decoding_backend": "chaos_guide:no-fallback"}),
        "reasoning_parser": ("/v1/chat/completions", chat), "tool_parser": ("/v1/chat/completions", chat | {"tools": [tool]}),
        "tokenizer_pool": ("/v1/completions", plain | {"prompt": LONG}), "extension": ("/chaos/fine", None),
    }  # fmt: skip
    return found.get(kind, ("/v1/completions", plain))


def test_the_table_is_long_enough() -> None:
    assert len(FAULTS) >= 30
    assert {fault.kind for fault in FAULTS} == set(NAMES)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault(server: EngineServer, undisturbed: str, fault: Fault) -> None:
    neighbour = Neighbour(server)
    neighbour.start()
    neighbour.begun.wait(60)
    status, answer, _ = ask(server, fault.path, fault.body)
    assert status == fault.status, answer
    if fault.code:
        error = answer["error"]
        assert error["code"] == fault.code, error
        if fault.code == "plugin_error":
            assert error["type"] == "plugin_error"
            assert f"{NAMES[fault.kind]} (from file {CHAOS / NAMES[fault.kind]}.py) failed: " in error["message"]
    neighbour.join()
    assert neighbour.text == undisturbed
    # The plugin goes on; and uses that succeed keep it out of quarantine.
    for _ in range(3):
        status, answer, _ = ask(server, *sound(fault.kind))
        assert status == 200, answer


def test_a_stream_ends_with_the_error(server: EngineServer) -> None:
    body = SHORT | {"prompt": "Hello", "logits_processors": [{"name": "chaos_processor", "kwargs": {"fault": "raises"}}], "stream": True}
    request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        events = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
    assert events[-1]["error"]["code"] == events[-1]["error"]["type"] == "plugin_error"
    assert events[0]["choices"][0]["text"]
    for _ in range(3):
        assert ask(server, *sound("logits_processor"))[0] == 200


def test_too_many_failures_switch_a_plugin_off(server: EngineServer, capsys: pytest.CaptureFixture[str]) -> None:
    failing = next(fault for fault in FAULTS if fault.name == "tool_parser, start raises")
    for _ in range(200):
        status, answer, headers = ask(server, failing.path, failing.body)
        if status == 503:
            break
        assert status == 500
    assert status == 503
    assert answer["error"]["code"] == "plugin_quarantined"
    assert "--tool-call-parser chaos_tools (from file " in answer["error"]["message"]
    assert 0 < int(headers["retry-after"]) <= 60
    # Without tools the server answers as before; nothing else is switched off.
    assert ask(server, "/v1/chat/completions", sound("reasoning_parser")[1])[0] == 200
    assert server.status("/health") == 200
    status, told, _ = ask(server, "/health/plugins", None)
    off = [row["name"] for row in told["plugins"] if row["quarantined_seconds"]]
    assert (status, off) == (200, ["chaos_tools"])
    assert next(row for row in told["plugins"] if row["name"] == "chaos_tools")["failures"] >= 5
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as page:
        metrics = page.read().decode()
    assert f'engine:plugin_errors_total{{distribution="file {CHAOS}/chaos_tools.py",kind="tool_parser",plugin="chaos_tools"}}' in metrics
    assert 'kind="tool_parser",plugin="chaos_tools"} 1.0' in metrics
    from engine.cli.plugins import run

    assert run(["list", "--url", server.url, "--kind", "tool_parser"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tool_parser chaos_tools (file ") and "switched off for " in shown
    log = server.log.read_text()
    assert "--tool-call-parser chaos_tools (from file" in log and "is switched off for 60 s" in log
