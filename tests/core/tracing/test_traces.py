"""Spans as a collector gets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import msgspec
import pytest

from engine.config import ObservabilityConfig
from engine.errors import RequestError
from engine.llm import LLM
from engine.plugin import Choice, SamplingParams
from engine.tracing import Traces, piece
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config
from tests.core.tracing.collector import grpc_collector, http_collector

pytest.importorskip("opentelemetry.sdk.trace")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def config_for(url: str, protocol: str = "http/protobuf", **fields):
    tokenizer = Choice("tokenizer", "auto", "m", "acme-texts 1.2", "auto")
    observability = ObservabilityConfig(traces_endpoint=url, traces_protocol=protocol, **fields)
    return msgspec.structs.replace(make_config(), observability=observability, choices={"tokenizer": tokenizer})


async def spans_of(collector, work, client=None, **fields):
    config = config_for(collector.url, **fields)
    traces = Traces.of(config)
    async with in_memory(client or FakeClient(script=[40] * 5), config=config, traces=traces) as http:
        answers = await work(http)
    await traces.close()
    return answers


async def test_a_request_is_a_span_with_its_parts():
    async def work(http):
        body = {"prompt": "abcd", "max_tokens": 4, "temperature": 0.5, "top_p": 0.75}
        return await http.post("/v1/completions", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"})

    with http_collector() as collector:
        assert (await spans_of(collector, work, FakeClient(script=[40] * 9, delay=0.01))).status_code == 200
    (root,) = collector.roots()
    assert (root.trace, root.parent, root.kind) == (TRACE, PARENT, 2)
    assert collector.paths == ["/v1/traces"] and root.resource["service.name"] == "engine" and not root.failed
    told = root.attributes
    expected = {
        "gen_ai.response.model": "toy", "gen_ai.request.id": "mine", "gen_ai.request.temperature": 0.5, "gen_ai.request.top_p": 0.75,
        "gen_ai.request.max_tokens": 4, "gen_ai.request.n": 1, "gen_ai.usage.num_sequences": 1, "gen_ai.usage.prompt_tokens": 4,
        "gen_ai.usage.completion_tokens": 4, "url.path": "/v1/completions", "http.response.status_code": 200,
        "gen_ai.operation.name": "completions",
    }  # fmt: skip
    assert expected.items() <= told.items()
    assert 0 <= told["gen_ai.latency.time_in_queue"] <= told["gen_ai.latency.time_to_first_token"] <= told["gen_ai.latency.e2e"]
    assert "gen_ai.latency.time_in_scheduler" not in told
    parts = collector.children(root)
    assert set(parts) == {"tokenize", "queue", "prefill", "decode"}
    assert sum(parts[name].seconds for name in ("queue", "prefill", "decode")) == pytest.approx(told["gen_ai.latency.e2e"], abs=1e-5)
    assert all(root.began <= part.began <= part.ended <= root.ended and part.trace == TRACE for part in parts.values())
    assert parts["tokenize"].attributes == {
        "engine.plugin.kind": "tokenizer", "engine.plugin.name": "auto", "engine.plugin.distribution": "acme-texts",
        "engine.plugin.version": "1.2",
    }  # fmt: skip


async def test_by_grpc():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

    async def work(http):
        return await http.post("/v1/completions", json={"prompt": "abcd", "max_tokens": 4})

    with grpc_collector() as collector:
        await spans_of(collector, work, protocol="grpc")
    assert [root.attributes["gen_ai.usage.completion_tokens"] for root in collector.roots()] == [4]


async def test_streams_several_sequences_and_what_is_refused():
    async def work(http):
        await http.post("/v1/completions", json={"prompt": ["a", "bc"], "n": 2, "max_tokens": 3, "stream": True})
        await http.post("/v1/completions", json={"prompt": "a", "temperature": -1})
        await http.get("/metrics")
        await http.post("/tokenize", json={"prompt": "a"})

    with http_collector() as collector:
        await spans_of(collector, work)
    stream, refused = collector.roots()
    assert stream.parent == "" and stream.trace != refused.trace
    usage = {key.rsplit(".", 1)[1]: value for key, value in stream.attributes.items() if ".usage." in key}
    assert usage == {"num_sequences": 4, "prompt_tokens": 3, "completion_tokens": 12}
    numbers = [span.attributes["engine.sequence"] for span in collector.spans if span.name == "decode"]
    assert sorted(numbers) == [0, 1, 2, 3]
    assert refused.attributes["http.response.status_code"] == 400 and not refused.failed


async def test_failures_are_marked():
    client = FakeClient()
    client.fail_after = 2

    async def work(http):
        await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 9})
        await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 9, "stream": True})

    with http_collector() as collector:
        await spans_of(collector, work, client)
    assert [(root.failed, "not finite" in root.message) for root in collector.roots()] == [(True, True)] * 2


async def test_one_whose_client_went_away_ends():
    client = FakeClient(delay=0.02)

    async def work(http):
        task = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 500}))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with http_collector() as collector:
        await spans_of(collector, work, client)
    (root,) = collector.roots()
    assert 0 < root.attributes["gen_ai.usage.completion_tokens"] < 500


async def test_one_that_the_client_does_not_want_recorded_is_not():
    async def work(http):
        await http.post("/v1/completions", json={"prompt": "a"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        await http.post("/v1/completions", json={"prompt": "a"}, headers={"traceparent": "nonsense \x01"[:9]})

    with http_collector() as collector:
        await spans_of(collector, work)
    assert [root.parent for root in collector.roots()] == [""]


async def test_an_absent_collector_stops_nobody(monkeypatch, caplog):
    async def work(http):
        return await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})

    with http_collector() as collector:
        pass
    monkeypatch.setattr("engine.tracing.traces.CLOSING_SECONDS", 0.5)
    assert (await asyncio.wait_for(spans_of(collector, work), 10)).status_code == 200


async def test_the_whole_path_of_an_address_counts():
    async def work(http):
        await http.post("/v1/completions", json={"prompt": "a"})

    with http_collector() as collector:
        url, collector.url = collector.url, f"{collector.url}/tenant/traces"
        await spans_of(collector, work)
    assert collector.paths == ["/tenant/traces"] and url


async def test_nothing_is_collected_unless_asked():
    async with in_memory() as http:
        service = http.app.state.service
        assert service.traces is None and service.begin_trace(1.0) is None
        await http.post("/v1/completions", json={"prompt": "a"})
    with piece("render", "tokenizer") as timed:
        pass
    assert timed.ended == 0.0
    code = "import sys; import engine.server.app, engine.llm; print('\\n'.join(sys.modules))"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout.split()
    assert "engine.tracing" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry.exporter") or name == "engine.tracing._otlp"]


def test_the_offline_api(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    flags = {"max_model_len": 256, "use_tqdm_on_load": False}
    with http_collector() as collector, LLM("demo", otlp_traces_endpoint=collector.url, **flags) as llm:
        llm.generate(["one", "two"], params, use_tqdm=False)
        llm.chat([{"role": "user", "content": "Hi"}], params, use_tqdm=False)
        assert "".join(llm.stream([{"role": "user", "content": "Hi"}], params)) is not None
        with pytest.raises(RequestError):
            llm.generate("x", SamplingParams(temperature=-1.0), use_tqdm=False)
        llm.close()
    roots = collector.roots()
    assert len(roots) == 4 and len({root.trace for root in roots}) == 4
    for root in roots:
        told = root.attributes
        assert told["gen_ai.operation.name"] == "offline" and told["gen_ai.usage.completion_tokens"] == 4 and "url.path" not in told
        parts = collector.children(root)
        assert {"tokenize", "queue", "prefill", "decode"} <= set(parts)
        assert parts["tokenize"].attributes["engine.plugin.distribution"] == "engine"
        assert all(root.began <= part.began <= part.ended <= root.ended for part in parts.values())
    assert sum("render" in collector.children(root) for root in roots) == 2
