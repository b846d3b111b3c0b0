"""Random wrong requests, by our own grammar and from our OpenAPI document: no 5xx, the same engine, an undisturbed neighbour."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.fuzzing import KEY, Fuzzer
from tests.integration.neighbour import Neighbour
from tests.integration.serving import RunningServer, serve

BEARER = {"authorization": f"Bearer {KEY}"}
#: Requests of the long run, and where its dice begin.
MANY = int(os.environ.get("ENGINE_FUZZ_REQUESTS", "100000"))
SEED = int(os.environ.get("ENGINE_FUZZ_SEED", "1"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flags = ["--api-key", KEY, "--max-model-len", "256", "--max-num-seqs", "16", "--enable-auto-tool-choice"]
    flags += ["--tool-call-parser", "auto", "--disable-uvicorn-access-log", "--disable-log-requests"]
    with serve(tmp_path_factory.mktemp("fuzz") / "log", "demo", *flags) as running:
        yield running


@pytest.fixture
def undisturbed(server: RunningServer) -> Iterator[None]:
    """Around a test: a neighbour's stream, the engine's process, the server's log."""
    pid = server.engine_pid()
    neighbour = Neighbour(server.url, BEARER)
    with neighbour.running():
        yield
    assert neighbour.runs >= 1 and neighbour.odd == []
    assert server.engine_pid() == pid
    text = server.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") - 2000 :][:6000]
    assert KEY not in text


async def fire(server: RunningServer, count: int, seed: int) -> None:
    fuzzer = Fuzzer(int(server.url.rpartition(":")[2]), random.Random(seed))
    await fuzzer.fire(count)
    print(f"\n{sum(fuzzer.statuses.values())} requests: {dict(sorted(fuzzer.statuses.items()))}")
    assert not fuzzer.wrong, b"\n".join(request + b"\n-> " + answer for request, answer in fuzzer.wrong).decode(errors="replace")
    assert fuzzer.statuses["200"] > count / 20 and fuzzer.statuses["400"] > count / 5


@pytest.mark.usefixtures("undisturbed")
async def test_grammar(server: RunningServer) -> None:
    await fire(server, 1500, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("undisturbed")
async def test_grammar_at_length(server: RunningServer) -> None:
    await fire(server, MANY, seed=SEED)


def operations(server: RunningServer) -> list[Any]:
    schemathesis = pytest.importorskip("schemathesis")
    document = httpx.get(f"{server.url}/openapi.json", headers=BEARER).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    return [found.ok() for found in schema.get_all_operations()]


def explore(server: RunningServer, examples: int, seed: int) -> int:
    """Requests sent."""
    import hypothesis

    pytest.importorskip("schemathesis")
    from schemathesis import GenerationMode

    sent = 0
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=120) as client:
        for operation in operations(server):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @hypothesis.seed(seed)
                @hypothesis.settings(
                    max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
                    phases=[hypothesis.Phase.generate],
                )  # fmt: skip
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def send(case: Any) -> None:
                    nonlocal sent
                    asked = case.as_transport_kwargs(base_url=server.url, headers=BEARER)
                    names = ("method", "url", "headers", "params", "json", "data", "cookies")
                    known = {name: asked[name] for name in names if asked.get(name)}
                    try:
                        request = client.build_request(known.pop("method"), known.pop("url"), **known)
                    except (TypeError, ValueError, httpx.InvalidURL, UnicodeError):
                        return
                    answer = client.send(request)
                    sent += 1
                    assert answer.status_code < 500, (request.content, answer.text)
                    assert answer.headers["x-request-id"]
                    assert "Traceback" not in answer.text

                try:
                    send()
                except hypothesis.errors.Unsatisfiable:
                    continue
    return sent


@pytest.mark.usefixtures("undisturbed")
def test_document(server: RunningServer) -> None:
    assert explore(server, 8, seed=0) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("undisturbed")
def test_document_at_length(server: RunningServer) -> None:
    sent = explore(server, MANY // 100, seed=SEED)
    print(f"\n{sent} requests from the document")
    assert sent > 1000
