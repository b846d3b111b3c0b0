"""Whatever a plugin causes names it: the answer, the log line, the metric, the list of failures, the span."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.core.plugin.packages import install
from tests.core.tracing.collector import Collector, http_collector
from tests.integration.serving import RunningServer, serve

pytest.importorskip("opentelemetry.sdk.trace")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

KEY, PROMPT = "lines-key-1234", "a prompt that no line tells"
BEARER = {"authorization": f"Bearer {KEY}"}
PROCESSOR = '''"""Fails when it is asked to."""
from engine.plugin import LogitsProcessor, hookimpl
ENGINE_API = 1
class Failing(LogitsProcessor):
    def validate(self, arguments): return None
    def apply(self, logits, prompt, output, arguments):
        raise ValueError("out of luck")
@hookimpl
def engine_create_logits_processor(): return Failing()
'''
PARSER = '''"""Fails at its first piece."""
from engine.plugin import Delta, ParserState, ReasoningParser, hookimpl
ENGINE_API = 1
class State(ParserState):
    def feed(self, text, token_ids): raise KeyError("no such piece")
    def finish(self): return Delta()
    def reasoning_ended(self): return True
class Failing(ReasoningParser):
    def start(self, prompt_token_ids): return State()
@hookimpl
def engine_create_reasoning_parser(tokenizer): return Failing()
'''


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Collector]]:
    place = tmp_path_factory.mktemp("lines")
    (place / "site").mkdir()
    install(place / "site", "acme-processors", PROCESSOR, name="luckless", kind="logits_processor")
    install(place / "site", "acme-parsers", PARSER, name="luckless_thoughts", kind="reasoning_parser")
    with pytest.MonkeyPatch.context() as patch, http_collector() as collector:
        patch.setenv("PYTHONPATH", str(place / "site"))
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        flags = ["--api-key", KEY, "--reasoning-parser", "luckless_thoughts", "--otlp-traces-endpoint", collector.url]
        with serve(place / "log", "demo", *flags) as server:
            yield server, collector


CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "in the engine": (
        "/v1/completions", {"prompt": PROMPT, "max_tokens": 3, "logits_processors": ["luckless"]},
        "logits_processor luckless (from acme-processors 0.3) failed: ValueError: out of luck",
        "acme-processors 0.3",
    ),
    "in the front end": (
        "/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3},
        "--reasoning-parser luckless_thoughts (from acme-parsers 0.3) failed: KeyError: 'no such piece'",
        "acme-parsers 0.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_failure_names_the_plugin_everywhere(running: tuple[RunningServer, Collector], case: str) -> None:
    server, _ = running
    path, body, says, distribution = CASES[case]
    answer = httpx.post(f"{server.url}{path}", json=body, headers={**BEARER, "x-request-id": case.replace(" ", "-")}, timeout=60)
    assert answer.status_code == 500
    assert answer.json()["error"] == {"message": says, "type": "plugin_error", "param": None, "code": "plugin_error"}
    assert f"ERROR:     {says}\n" in server.log.read_text()
    page = httpx.get(f"{server.url}/metrics", headers=BEARER).text.splitlines()
    (line,) = (line for line in page if line.startswith("engine:plugin_errors_total{") and f'distribution="{distribution}"' in line)
    assert line.endswith(" 1.0") and 'plugin="luckless' in line and 'kind="' in line
    rows = httpx.get(f"{server.url}/health/plugins", headers=BEARER).json()["plugins"]
    (row,) = (row for row in rows if row["distribution"] == distribution)
    assert row["failures"] == 1 and row["last"] in says and row["name"] in says


def test_spans_of_plugins_name_them(running: tuple[RunningServer, Collector]) -> None:
    import time

    server, collector = running
    path, body, _, _ = CASES["in the front end"]
    httpx.post(f"{server.url}{path}", json=body, headers={**BEARER, "x-request-id": "span"}, timeout=60)
    end = time.monotonic() + 20
    roots = []
    while not roots and time.monotonic() < end:
        time.sleep(0.1)
        roots = [root for root in collector.roots() if root.attributes["gen_ai.request.id"] == "span"]
    (root,) = roots
    assert root.failed and "luckless_thoughts (from acme-parsers 0.3)" in root.message
    told = collector.children(root)["parse"].attributes
    wanted = {"kind": "reasoning_parser", "name": "luckless_thoughts", "distribution": "acme-parsers", "version": "0.3"}
    assert {f"engine.plugin.{name}": value for name, value in wanted.items()}.items() <= told.items()


def test_no_line_tells_what_users_sent(running: tuple[RunningServer, Collector]) -> None:
    server, collector = running
    refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": PROMPT, "n": 0}, headers={"authorization": f"Bearer {KEY}x"})
    assert refused.status_code == 401
    text = server.log.read_text() + httpx.get(f"{server.url}/metrics", headers=BEARER).text + repr([s.attributes for s in collector.spans])
    for secret in (KEY, PROMPT, "that no line"):
        assert secret not in text
