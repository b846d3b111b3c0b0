"""Randomness over HTTP: seeds make outputs repeatable, alone, among batch mates and over restarts; without them outputs differ."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving import RunningServer, serve

WARM = {"prompt": "One two", "max_tokens": 16, "temperature": 3.0, "ignore_eos": True}
FLAGS = ("demo", "--max-model-len", "512", "--max-num-seqs", "16", "--disable-uvicorn-access-log")


def texts(server: RunningServer, path: str = "/v1/completions", **fields: Any) -> list[str]:
    body = {**WARM, **fields}
    if path.endswith("chat/completions"):
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    answer = httpx.post(server.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return [choice.get("text") or choice["message"]["content"] for choice in answer.json()["choices"]]


def session(server: RunningServer) -> list[str]:
    """Requests without seeds, in one order: whole and listed prompts, several choices, a long prompt, chat."""
    found = texts(server) + texts(server, prompt=["One two", "One two"], n=2) + texts(server, prompt="word " * 100)
    return found + texts(server, "/v1/chat/completions", n=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("seeds") / "log", *FLAGS, "--seed", "5") as running:
        yield running


def test_the_servers_seed_and_the_order_of_requests_decide(server: RunningServer, tmp_path: Path) -> None:
    first = session(server)
    assert len(set(first)) == len(first) == 9
    assert session(server) != first
    with serve(tmp_path / "same", *FLAGS, "--seed", "5") as again:
        assert session(again) == first
    with serve(tmp_path / "other", *FLAGS, "--seed", "6") as other:
        assert not set(session(other)) & set(first)


def test_without_any_seed_two_starts_differ(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with serve(tmp_path / name, *FLAGS) as running:
            found.append(texts(running))
    assert found[0] != found[1]


def test_a_requests_seed_is_independent_of_batch_mates(server: RunningServer) -> None:
    alone = {seed: texts(server, seed=seed, n=2) for seed in range(6)}
    assert len({text for pair in alone.values() for text in pair}) == 7  # choice j of seed s is choice 0 of seed s + j
    with ThreadPoolExecutor(18) as threads:
        mates = [threads.submit(texts, server, max_tokens=4 + number) for number in range(6)]
        seeded = {seed: threads.submit(texts, server, seed=seed, n=2) for seed in [*range(6)]}
        repeated = [threads.submit(texts, server, seed=3, n=2) for _ in range(3)]
        assert {seed: future.result() for seed, future in seeded.items()} == alone
        assert [future.result() for future in repeated] == [alone[3]] * 3
        assert all(future.result() for future in mates)


def test_best_of_and_greedy(server: RunningServer) -> None:
    assert len(set(texts(server, n=4, seed=1))) == 4
    assert texts(server, n=2, best_of=4, seed=1) == texts(server, n=2, best_of=4, seed=1)
    assert texts(server, temperature=0) == texts(server, temperature=0, seed=9)
