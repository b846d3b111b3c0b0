"""What the page of metrics counts."""

from __future__ import annotations

import msgspec
import pytest

from engine.config import ObservabilityConfig
from engine.messages import Output, Spent, Stats
from engine.metrics import Metrics, RequestTimes, registry
from engine.metrics.state import Totals
from engine.plugin import Request, SamplingParams
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config
from tests.test_docs import REPOSITORY


def value(page: bytes, name: str, **labels: str) -> float:
    wanted = "".join(f',{key}="{text}"' for key, text in labels.items())
    for line in page.decode().splitlines():
        if line.startswith(f'{name}{{model_name="toy"{wanted}' if labels else f"{name}{{"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no {name}")


class Job:
    endpoint, model = "chat", "toy"


class Made:
    tokens, cached_tokens = 3, 0


def observed(**fields):
    return msgspec.structs.replace(make_config(), observability=ObservabilityConfig(**fields))


def finish(metrics: Metrics, spent: Spent | None = None) -> None:
    times = RequestTimes(1.0)
    times.see(Output(id="a", token_ids=[1], started=2.0, spent=spent), 4.0)
    times.end(9.0)
    request = Request(id="a", prompt_token_ids=[1, 2], params=SamplingParams(), arrival=1.0)
    metrics.finished(Job(), request, Made(), times, "stop")


def test_every_step_counts_in_its_own_bucket():
    client = FakeClient()
    client.stats = Stats()
    metrics = Metrics(make_config(), client)
    tokens = [1, 500, 1, 8, 9, 4096]
    for steps in range(len(tokens)):
        client.stepped(Stats(steps=steps + 1, step_tokens=sum(tokens[: steps + 1])))
    client.stepped(client.stats)  # a message after an abort repeats the state
    page = metrics.page()
    expected = {"1.0": 2, "8.0": 3, "16.0": 4, "256.0": 4, "512.0": 5, "2048.0": 5, "4096.0": 6, "+Inf": 6}
    for edge, count in expected.items():
        assert f'vllm:iteration_tokens_total_bucket{{le="{edge}",model_name="toy"}} {count}.0'.encode() in page, edge
    assert value(page, "vllm:iteration_tokens_total_sum") == sum(tokens)
    assert value(page, "engine:steps_total") == len(tokens)


def test_a_restart_takes_nothing_back():
    client = FakeClient()
    client.stats = Stats()
    metrics = Metrics(make_config(), client)
    client.stepped(Stats(steps=1, step_tokens=100, preemptions=2, prefix_queries=10, prefix_hits=4))
    client.restarts = 1
    client.stepped(Stats(steps=1, step_tokens=7, preemptions=1, prefix_queries=1))
    page = metrics.page()
    for name, expected in (
        ("engine:restarts_total", 1), ("vllm:num_preemptions_total", 3), ("vllm:gpu_prefix_cache_queries_total", 11),
        ("vllm:gpu_prefix_cache_hits_total", 4), ("engine:steps_total", 2), ("vllm:iteration_tokens_total_sum", 107),
    ):  # fmt: skip
        assert value(page, name) == expected, name


def test_lives_add_up():
    totals = Totals()
    assert totals.see(Stats(steps=3, step_tokens=30), 0) == (3, 30)
    assert totals.see(Stats(steps=4, step_tokens=31), 0) == (1, 1)
    assert totals.see(Stats(steps=4, step_tokens=99), 2) == (4, 99)
    assert totals.total("steps") == 8 and totals.total("step_tokens") == 130


def test_older_names_only_for_who_asks():
    def names(since):
        metrics = Metrics(observed(hidden_since=since), FakeClient())
        finish(metrics)
        return metrics.page()

    for since in (None, "0.1", "0.2", "1.0", "7.31"):
        assert b"time_in_queue_requests" not in names(since) and b"hit_rate" not in names(since), since
    page = names("0.0")
    assert value(page, "vllm:time_in_queue_requests_sum") == value(page, "vllm:request_queue_time_seconds_sum") == 1.0
    assert value(page, "vllm:gpu_prefix_cache_hit_rate") == 0.5


def test_the_release_is_this_one():
    text = (REPOSITORY / "pyproject.toml").read_text()
    major, minor, _ = text.split('\nversion = "')[1].split('"')[0].split(".")
    assert (int(major), int(minor)) == registry.RELEASE


@pytest.mark.parametrize(("details", "shown"), [((), set()), (("model",), {"forward"}), (("model", "worker"), {"forward", "execute"})])
def test_detailed_times_for_who_asks(details, shown):
    metrics = Metrics(observed(details=details), FakeClient())
    finish(metrics, Spent(0.001, 0.040, 0.030))
    page = metrics.page()
    for part, expected in (("forward", 30.0), ("execute", 40.0)):
        if part in shown:
            assert value(page, f"vllm:model_{part}_time_milliseconds_sum") == expected
        else:
            assert f"model_{part}_time".encode() not in page


async def test_what_waits_is_shown():
    client = FakeClient(delay=0.05)
    async with in_memory(client) as http:
        admission = http.app.state.service.admission
        tickets = [admission.enter(30), admission.enter(12)]
        page = (await http.get("/metrics")).content
        assert value(page, "engine:queued_requests") == 2 and value(page, "engine:queued_prompt_tokens") == 42
        for ticket in tickets:
            ticket.leave()
        page = (await http.get("/metrics")).content
        assert value(page, "engine:queued_requests") == value(page, "engine:queued_prompt_tokens") == 0
        assert value(page, "engine:kv_pages") == 100 and value(page, "engine:kv_pages_used") == 7


def test_nothing_is_watched_where_nothing_is_shown():
    client = FakeClient()
    config = make_config(disable_log_stats=True)
    page = Metrics(config, client).page()
    assert not client.watchers and b"vllm:" not in page and b"engine:" not in page and b"process_cpu_seconds" in page
