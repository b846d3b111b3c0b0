"""Metrics of a real server add up, whatever befalls its requests: preemption, clients that go away, an engine that is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving import RunningServer, serve


def values(server: RunningServer) -> dict[str, float]:
    """Every series without labels but the model's; with others, the sum."""
    found: dict[str, float] = {}
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if not line.startswith("#") and "_bucket{" not in line:
            name = line.split("{")[0].split(" ")[0]
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return found


def idle(server: RunningServer) -> dict[str, float]:
    """The metrics once nothing runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = values(server)
        if not now["vllm:num_requests_running"] and not now["engine:queued_requests"] and not now["engine:kv_pages_used"]:
            return now
        time.sleep(0.1)
    raise AssertionError("it does not come to rest")


def ask(server: RunningServer, body: dict[str, Any], leave_after: int | None) -> None:
    with contextlib.suppress(httpx.HTTPError), httpx.stream(
        "POST", f"{server.url}/v1/completions", json={**body, "stream": True}, timeout=120
    ) as response:
        for number, _ in enumerate(response.iter_lines()):
            if leave_after is not None and number >= leave_after:
                return


def test_queue_prefill_and_decode_are_the_whole(tmp_path: Path) -> None:
    drawn = random.Random(5)
    flags = ("--num-gpu-blocks-override", "140", "--max-num-seqs", "12", "--max-num-batched-tokens", "128", "--disable-uvicorn-access-log")
    with serve(tmp_path / "log", "demo", *flags, "--collect-detailed-traces", "all") as server:
        threads = []
        for number in range(40):
            prompt = "On and on. " * drawn.choice((1, 5, 60))
            body = {"prompt": prompt, "n": drawn.choice((1, 1, 2)), "max_tokens": drawn.randint(1, 500), "ignore_eos": True}
            threads.append(threading.Thread(target=ask, args=(server, body, drawn.choice((None, None, 0, 20)))))
            threads[-1].start()
            if number == 25:
                time.sleep(0.3)
                os.kill(server.engine_pid(), signal.SIGKILL)
        for thread in threads:
            thread.join()
        now = idle(server)
    ended = now["vllm:request_success_total"]
    whole = now["vllm:e2e_request_latency_seconds_sum"]
    parts = [now[f"vllm:request_{part}_time_seconds_sum"] for part in ("queue", "prefill", "decode")]
    assert sum(parts) == pytest.approx(whole, rel=1e-9) and all(part > 0 for part in parts)
    assert now["vllm:request_inference_time_seconds_sum"] == pytest.approx(parts[1] + parts[2], rel=1e-9)
    assert ended >= 40 and ended == now["vllm:e2e_request_latency_seconds_count"] == now["vllm:request_queue_time_seconds_count"]
    assert now["engine:restarts_total"] == 1 and now["vllm:num_preemptions_total"] > 0
    assert now["vllm:iteration_tokens_total_count"] == now["engine:steps_total"] > 0
    assert now["vllm:generation_tokens_total"] == now["vllm:request_generation_tokens_sum"]
    assert now["vllm:prompt_tokens_total"] == now["vllm:request_prompt_tokens_sum"]
    first, gaps = now["vllm:time_to_first_token_seconds_count"], now["vllm:time_per_output_token_seconds_count"]
    assert first + gaps == now["vllm:generation_tokens_total"] and first == now["vllm:request_decode_time_seconds_count"]
    forward, execute = (now[f"vllm:model_{part}_time_milliseconds_sum"] for part in ("forward", "execute"))
    assert 0 < forward < execute


def test_each_step_counts_what_it_computed(tmp_path: Path) -> None:
    flags = ("--no-enable-prefix-caching", "--max-num-batched-tokens", "64", "--disable-uvicorn-access-log")
    with serve(tmp_path / "log", "demo", *flags) as server:
        prompts = [list(range(10, 10 + length)) for length in (1, 100, 200)]
        answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": prompts, "max_tokens": 9, "ignore_eos": True}, timeout=60)
        assert answer.status_code == 200
        now = idle(server)
    assert now["vllm:iteration_tokens_total_sum"] == 301 + 3 * 8
