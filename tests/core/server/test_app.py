"""Keys, health, load, metrics, logs, layers."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from engine.errors import ConfigError, WorkerDied
from engine.messages import Stats
from engine.plugin.contracts.scheduling import SchedulingPolicy
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config, on_socket


def add_extension_route(app):
    async def extra() -> dict[str, int]:
        return {"extra": 1}

    app.add_api_route("/extension/extra", extra)


async def test_every_route_but_liveness_needs_the_key():
    async with in_memory(config=make_config(api_keys=("k1", "k2")), add_routes=add_extension_route) as http:
        paths = {route.path for route in http.app.routes}
        assert {"/v1/completions", "/metrics", "/docs", "/openapi.json", "/extension/extra", "/tokenize"} <= paths
        for path in [*paths, "/unknown", "/v1", "//v1/models", "/health/", "/ping/../v1/models", "/v1/models%2f..%2f..%2fhealth"]:
            for method in ("GET", "POST", "OPTIONS", "DELETE"):
                answer = await http.request(method, path.replace("{name:path}", "toy"), headers={"host": "health"})
                if path in ("/health", "/health/live", "/health/ready", "/ping"):
                    assert answer.status_code in (200, 405)
                else:
                    assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error", (method, path)
        for header in ("Bearer k", "k1", "Basic k1", "Bearer  ", "Bearer k1k2", ""):
            assert (await http.get("/v1/models", headers={"authorization": header})).status_code == 401
        for header in ("Bearer k1", "bearer k2"):
            assert (await http.get("/v1/models", headers={"authorization": header})).status_code == 200
        assert (await http.get("/extension/extra", headers={"authorization": "Bearer k1"})).json() == {"extra": 1}


async def test_the_root_path_of_a_proxy_does_not_open_anything():
    # The path that a server hands on holds its root path already.
    async with in_memory(config=make_config(api_keys=("k",), root_path="/api")) as http:
        assert (await http.get("/api/health")).status_code == 200
        assert (await http.get("/api/v1/models")).status_code == 401
        assert (await http.get("/api/v1/models", headers={"authorization": "Bearer k"})).status_code == 200
    async with on_socket(FakeClient(), make_config(api_keys=("k",), root_path="/api")) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/v1/models", headers={"authorization": "Bearer k"})).status_code == 200


async def test_head_is_answered_as_get_without_the_body():
    client = FakeClient()
    async with on_socket(client, make_config(api_keys=("k",))) as url, httpx.AsyncClient(base_url=url) as http:
        bearer = {"authorization": "Bearer k"}
        for path in ("/health", "/health/live", "/health/ready", "/ping", "/version", "/v1/models", "/v1/models/toy", "/metrics"):
            got, head = await http.get(path, headers=bearer), await http.head(path, headers=bearer)
            assert (got.status_code, head.status_code, head.content) == (200, 200, b""), path
            if path != "/metrics":
                assert head.headers["content-length"] == str(len(got.content)), path
        assert (await http.head("/v1/models")).status_code == 401
        client.dead = WorkerDied("the engine process ended with status -9.")
        assert (await http.head("/health")).status_code == 503
        wrong = await http.delete("/version", headers=bearer)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
        paths = (await http.get("/openapi.json", headers=bearer)).json()["paths"]
        assert not [path for path, methods in paths.items() if "head" in methods]


async def test_health_tells_the_truth():
    client = FakeClient()
    async with in_memory(client) as http:
        assert (await http.get("/health")).status_code == 200 and (await http.post("/ping")).status_code == 200
        client.dead = WorkerDied("the engine process ended with status -9.")
        answer = await http.get("/health")
        assert answer.status_code == 503 and "status -9" in answer.text
        answer = await http.post("/v1/completions", json={"prompt": "a"})
        assert answer.status_code == 503 and answer.headers["retry-after"] and "x-should-retry" not in answer.headers


async def test_an_unexpected_failure_is_a_500_without_details(caplog):
    client = FakeClient()

    async def broken(request):
        raise ZeroDivisionError("secret detail")
        yield

    client.generate = broken
    async with in_memory(client) as http:
        with caplog.at_level(logging.ERROR, "engine.server"):
            answer = await http.post("/v1/completions", json={"prompt": "a"})
        assert answer.status_code == 500 and "secret" not in answer.text and answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
        assert "secret detail" in caplog.text
        answer = await http.post("/v1/completions", json={"prompt": "a", "stream": True})
        assert '"server_error"' in answer.text and "secret" not in answer.text


class Ranked(SchedulingPolicy):
    def key(self, request):
        return request.id

    def check(self, priority):
        return None if priority < 10 else "priority must be below 10"


async def test_the_policy_decides_about_priorities():
    async with in_memory(policy=Ranked()) as http:
        assert (await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, "priority": 5})).status_code == 200
        answer = await http.post("/v1/completions", json={"prompt": "a", "priority": 10})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "priority"
        assert http.engine.seen[0].priority == 5


async def test_endpoints_that_the_task_lacks():
    async with in_memory(endpoints=frozenset({"completions"})) as http:
        answer = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        assert answer.status_code == 400 and "completions" in answer.json()["error"]["message"]


async def test_load_counts_requests_until_they_are_answered():
    client = FakeClient(delay=0.02)
    async with in_memory(client, config=make_config(enable_server_load_tracking=True)) as http:
        for stream in (False, True):
            task = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 10, "stream": stream}))
            await asyncio.sleep(0.1)
            assert (await http.get("/load")).json() == {"server_load": 1}
            assert (await task).status_code == 200
            assert (await http.get("/load")).json() == {"server_load": 0}
        await http.post("/v1/completions", json={"prompt": 5})
        assert (await http.get("/load")).json() == {"server_load": 0}


async def test_metrics_have_the_names_of_dashboards():
    client = FakeClient(script=[40] * 5)
    client.stats = Stats(
        running=2, waiting=3, pages=10, pages_used=5, preemptions=4, prefix_queries=8, prefix_hits=6, steps=7, step_tokens=70
    )
    seen = []
    async with in_memory(client, observers=[seen.append]) as http:
        await http.post("/v1/completions", json={"prompt": "abc", "max_tokens": 20})
        await http.post("/v1/completions", json={"prompt": "abc", "max_tokens": 2})
        page = (await http.get("/metrics")).text
    for line in (
        'vllm:num_requests_running{model_name="toy"} 2.0', 'vllm:num_requests_waiting{model_name="toy"} 3.0',
        'vllm:gpu_cache_usage_perc{model_name="toy"} 0.5', 'vllm:num_preemptions_total{model_name="toy"} 4.0',
        'vllm:gpu_prefix_cache_hits_total{model_name="toy"} 6.0', 'vllm:prompt_tokens_total{model_name="toy"} 6.0',
        'vllm:generation_tokens_total{model_name="toy"} 8.0', 'vllm:request_success_total{finished_reason="stop",model_name="toy"} 1.0',
        'vllm:request_success_total{finished_reason="length",model_name="toy"} 1.0',
        'vllm:iteration_tokens_total_sum{model_name="toy"} 70.0',
        'vllm:iteration_tokens_total_count{model_name="toy"} 7.0', 'vllm:e2e_request_latency_seconds_count{model_name="toy"} 2.0',
        'vllm:time_to_first_token_seconds_count{model_name="toy"} 2.0', 'vllm:time_per_output_token_seconds_count{model_name="toy"} 6.0',
        'vllm:request_params_max_tokens_sum{model_name="toy"} 22.0',
    ):  # fmt: skip
        assert line in page, line
    assert 'block_size="16"' in page
    sums = {name: float(page.split(f'vllm:{name}_sum{{model_name="toy"}} ')[1].split()[0]) for name in (
        "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    )}  # fmt: skip
    parts = sums["request_queue_time_seconds"] + sums["request_prefill_time_seconds"] + sums["request_decode_time_seconds"]
    assert abs(parts - sums["e2e_request_latency_seconds"]) < 1e-3
    assert [(record.prompt_tokens, record.output_tokens, record.finish_reason, record.endpoint) for record in seen] == [
        (3, 6, "stop", "completions"), (3, 2, "length", "completions"),
    ]  # fmt: skip


async def test_stats_can_be_off_and_tell_a_line():
    async with in_memory(config=make_config(disable_log_stats=True)) as http:
        await http.post("/v1/completions", json={"prompt": "abc"})
        page = (await http.get("/metrics")).text
        assert "vllm:" not in page and "process_resident_memory_bytes" in page
    async with in_memory() as http:
        metrics = http.app.state.service.metrics
        assert metrics.line() is None
        await http.post("/v1/completions", json={"prompt": "abc"})
        assert "KV cache usage: 7.0%, prefix cache hit rate: 50.0%" in metrics.line()
        assert metrics.line() is None


async def test_prompts_are_not_logged_unless_asked(caplog):
    for config, expected in (
        (make_config(), ["prompt_tokens=6"]), (make_config(disable_log_requests=True), []), (make_config(max_log_len=2), ["prompt_ids"]),
    ):  # fmt: skip
        caplog.clear()
        async with in_memory(config=config) as http:
            with caplog.at_level(logging.INFO):
                await http.post("/v1/completions", json={"prompt": "sekret"})
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("engine")]
        assert "sekret" not in " ".join(lines) and len(lines) == len(expected)
        assert all(part in " ".join(lines) for part in expected)


async def test_cors_is_off_unless_an_origin_is_allowed():
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    async with in_memory() as http:
        answer = await http.options("/v1/completions", headers=preflight)
        assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers
    async with in_memory(config=make_config(allowed_origins=("https://good.example",), api_keys=("k",))) as http:
        assert (await http.options("/v1/completions", headers=preflight)).status_code == 400
        good = await http.options("/v1/completions", headers={**preflight, "origin": "https://good.example"})
        assert good.status_code == 200 and good.headers["access-control-allow-origin"] == "https://good.example"


class Marking:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        scope.setdefault("state", {})["marked"] = True
        await self.app(scope, receive, send)


async def refuse_teapots(request, call_next):
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("teapot", 418) if request.url.path == "/teapot" else await call_next(request)


async def test_the_operators_middleware():
    here = "tests.core.server.test_app"
    async with in_memory(config=make_config(middleware=(f"{here}.Marking", f"{here}.refuse_teapots"))) as http:
        assert (await http.get("/teapot")).status_code == 418
        assert (await http.get("/health")).status_code == 200
    for bad in (f"{here}.missing", "nowhere.Thing", "x", f"{here}.preflight"):
        with pytest.raises(ConfigError, match="--middleware"):
            async with in_memory(config=make_config(middleware=(bad,))):
                pass


async def test_whoever_opens_the_address_is_shown_the_way():
    async with in_memory() as http:
        answers = [await http.get(path) for path in ("/", "/v1")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert ["/ui" in answer.json()["error"]["message"] for answer in answers] == [True, False]


async def test_docs_can_be_off():
    async with in_memory() as http:
        assert (await http.get("/openapi.json")).status_code == 200
    async with in_memory(config=make_config(disable_fastapi_docs=True)) as http:
        assert (await http.get("/openapi.json")).status_code == 404
