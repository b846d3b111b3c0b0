"""The bundled model over /v1/responses and /v1/messages, and logits processors under preemption beside plain neighbours."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.serving import serve

FLAGS = (
    "--enable-auto-tool-choice", "--tool-call-parser", "auto", "--enable-reasoning", "--reasoning-parser", "auto",
    "--logits-processor-pattern", r"acme_processors\.\w+", "--num-gpu-blocks-override", "17", "--block-size", "16",
    "--max-model-len", "256",
)  # fmt: skip
MODULE = '''
def only(token):
    def apply(output, logits):
        logits[:token] = -float("inf")
        logits[token + 1:] = -float("inf")
        return logits
    return apply


def breaks_later(output, logits):
    if len(output) == 20:
        raise ValueError("it breaks here")
    return logits
'''
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION = "What is the weather in Paris?"
NAMED = {"name": "get_weather", "description": "Get the weather of a city"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "acme_processors.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with serve(Path(folder) / "server.log", "demo", *FLAGS, healthy_within=240.0) as server:
            yield server.url


def test_responses(url):
    tools = [{"type": "function", **NAMED, "parameters": PARAMETERS}, {"type": "web_search"}]
    answer = httpx.post(f"{url}/v1/responses", json={"input": QUESTION, "tools": tools, "temperature": 0}, timeout=60)
    assert answer.headers["x-ignored-types"] == "web_search"
    thought, call = answer.json()["output"]
    assert thought["content"][0]["text"] and (call["name"], call["arguments"]) == ("get_weather", '{"city": "Paris"}')


def test_messages(url):
    body = {"max_tokens": 100, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    body["tools"] = [{**NAMED, "input_schema": PARAMETERS}]
    answer = httpx.post(f"{url}/v1/messages?beta=true", json=body, timeout=60).json()
    thinking, call = answer["content"]
    assert thinking["signature"] and call["input"] == {"city": "Paris"} and answer["stop_reason"] == "tool_use"
    body.pop("max_tokens")
    counted = httpx.post(f"{url}/v1/messages/count_tokens", json={**body}, timeout=60).json()["input_tokens"]
    assert counted == answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"]


def body_of(number: int) -> dict[str, object]:
    """Every second request repeats no pair of tokens, every sixth fails in the middle."""
    body: dict[str, object] = {
        "prompt": f"Once upon a time there were {number + 2} rabbits. ", "max_tokens": 100, "ignore_eos": True, "seed": number,
        "temperature": 0.0 if number % 4 < 2 else 1.0, "logprobs": 0, "return_tokens_as_token_ids": True,
    }  # fmt: skip
    if number % 2:
        body["logits_processors"] = [{"name": "no_repeat_ngram", "kwargs": {"size": 2}}, {"name": "top_n_sigma", "kwargs": {"n": 3}}]
    if number % 6 == 4:
        body["logits_processors"] = ["acme_processors.breaks_later"]
    return body


async def test_processors_beside_others_and_preempted(url):
    """Each answer is what it is alone, though the pages do not suffice for all."""
    numbers = range(12)
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        alone = [await http.post("/v1/completions", json=body_of(number)) for number in numbers]
        before = await preemptions(http)
        together = await asyncio.gather(*(http.post("/v1/completions", json=body_of(number)) for number in numbers))
        assert await preemptions(http) > before
    repeated = [False, False]
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        if number % 6 == 4:
            assert one.status_code == other.status_code == 500
            told = "acme_processors.breaks_later (from no distribution) failed: ValueError: it breaks here"
            assert told in other.json()["error"]["message"]
            continue
        tokens = other.json()["choices"][0]["logprobs"]["tokens"]
        assert tokens == one.json()["choices"][0]["logprobs"]["tokens"] and len(tokens) == 100
        repeated[number % 2] |= len(set(itertools.pairwise(tokens))) < len(tokens) - 1
    assert repeated == [True, False]


async def preemptions(http: httpx.AsyncClient) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_preemptions_total"))


def test_a_python_name_is_used_where_the_pattern_allows_it(url):
    asked = {"prompt": "x", "max_tokens": 5, "temperature": 0, "logprobs": 0, "return_tokens_as_token_ids": True}
    made = httpx.post(f"{url}/v1/completions", json={**asked, "logits_processors": [{"qualname": "acme_processors.only", "args": [77]}]})
    assert set(made.json()["choices"][0]["logprobs"]["tokens"]) == {"token_id:77"}
    for wrong in ("acme_processors.missing", "acme_processors", "os.system", {"name": "acme_processors.only", "args": []}):
        refused = httpx.post(f"{url}/v1/completions", json={**asked, "logits_processors": [wrong]})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "logits_processors[0]"
