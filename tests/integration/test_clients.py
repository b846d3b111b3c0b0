"""Clients of a real server: the openai SDK streamed and whole, what evaluation harnesses read, metrics and limits that flags set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from engine.server.auth import OPEN_PATHS
from tests.integration.serving import RunningServer, serve

KEY = "sdk-key"
QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
FLAGS = (
    "demo", "--api-key", KEY, "--served-model-name", "first", "second", "--max-logprobs", "7", "--max-num-seqs", "8",
    "--enable-prompt-tokens-details", "--enable-server-load-tracking", "--scheduling-policy", "priority", "--response-role", "bot",
    "--override-generation-config", '{"temperature": 0, "max_new_tokens": 60}', "--disable-log-requests", "--disable-uvicorn-access-log",
    "--max_model_len=1k",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("clients") / "log", *FLAGS) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


CHATS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 1.2, "seed": 3, "n": 3, "max_tokens": 20},
    "stopped": {"stop": ["</think>"]},
    "log-probabilities": {"logprobs": True, "top_logprobs": 3, "max_tokens": 8},
    "short": {"max_tokens": 3},
}


@pytest.mark.parametrize("name", CHATS)
def test_chat_streamed_equals_whole(sdk: openai.OpenAI, name: str) -> None:
    request: Any = {"model": "second", "messages": QUESTION, **CHATS[name]}
    whole = sdk.chat.completions.create(**request)
    texts: dict[int, str] = {choice.index: "" for choice in whole.choices}
    ends: dict[int, str | None] = {}
    tokens: dict[int, list[Any]] = {index: [] for index in texts}
    usage = None
    for chunk in sdk.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        assert chunk.model == "second"
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
            if choice.logprobs is not None:
                tokens[choice.index] += choice.logprobs.content or []
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage is not None and whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    if "logprobs" in CHATS[name]:
        assert whole.choices[0].logprobs is not None
        expected = whole.choices[0].logprobs.content or []
        assert [entry.token for entry in tokens[0]] == [entry.token for entry in expected]
        assert [entry.logprob for entry in tokens[0]] == pytest.approx([entry.logprob for entry in expected], abs=1e-2)


def test_the_answer_is_right(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="first", messages=QUESTION)  # type: ignore[arg-type]
    assert (answer.choices[0].message.content or "").endswith("42")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.role == "bot"


def test_completions_streamed_equal_whole(sdk: openai.OpenAI) -> None:
    request: Any = {"model": "first", "prompt": ["My name is", "Two dogs"], "max_tokens": 12, "n": 2, "temperature": 0.9, "seed": 1}
    whole = sdk.completions.create(**request)
    texts = [""] * 4
    for chunk in sdk.completions.create(**request, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert whole.usage is not None and whole.usage.completion_tokens == 48


def test_errors_are_the_sdks_own(sdk: openai.OpenAI, server: RunningServer) -> None:
    with pytest.raises(openai.NotFoundError, match="first, second"):
        sdk.completions.create(model="demo", prompt="Hi")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1000 tokens") as caught:
        sdk.completions.create(model="first", prompt="word " * 2000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="--max-logprobs"):
        sdk.completions.create(model="first", prompt="Hi", logprobs=8)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="other", max_retries=0).models.list()


def test_models_name_their_length(sdk: openai.OpenAI) -> None:
    cards = {card.id: card.model_dump() for card in sdk.models.list()}
    assert list(cards) == ["first", "second"]
    assert all(card["max_model_len"] == 1000 for card in cards.values())


def test_what_an_evaluation_harness_reads(http: httpx.Client) -> None:
    """Prompts as token ids, echoed with log-probabilities: each is the prompt's own, and the greedy one is exactly the largest."""
    tokens = http.post("/tokenize", json={"prompt": "The capital of this is the word"}).json()["tokens"]
    body = {"prompt": [tokens, tokens[:4]], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
    answer = http.post("/v1/completions", json=body).json()
    for place, count in enumerate((len(tokens), 4)):
        found = answer["choices"][place]["logprobs"]
        assert answer["choices"][place]["index"] == place
        assert len(found["token_logprobs"]) == len(found["top_logprobs"]) == len(found["tokens"]) == count + 1
        assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
        assert all(value < 0 and math.isfinite(value) for value in found["token_logprobs"][1:])
        assert found["token_logprobs"][-1] == max(found["top_logprobs"][-1].values())
        assert "".join(found["tokens"]) == answer["choices"][place]["text"]
    assert answer["choices"][0]["logprobs"]["token_logprobs"][1:4] == pytest.approx(
        answer["choices"][1]["logprobs"]["token_logprobs"][1:4], abs=1e-2
    )
    scored = http.post("/v1/completions", json={**body, "max_tokens": 0}).json()
    assert scored["usage"]["completion_tokens"] == 0
    assert scored["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(
        answer["choices"][0]["logprobs"]["token_logprobs"][:-1], abs=1e-2
    )
    assert http.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == "The capital of this is the word"


def test_defaults_of_the_generation_config(http: httpx.Client) -> None:
    body = {"prompt": "Hi", "ignore_eos": True, "max_tokens": 200}
    first = http.post("/v1/completions", json=body).json()
    assert first["usage"]["completion_tokens"] == 60
    assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == first["choices"][0]["text"]


def test_stop_strings_ids_and_ignored_fields(http: httpx.Client) -> None:
    body = {"messages": QUESTION, "max_tokens": 60}
    full = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    cut = http.post("/v1/chat/completions", json={**body, "stop": ["nothing", "</think>"]}).json()["choices"][0]
    assert (cut["message"]["content"], cut["stop_reason"]) == (full.split("</think>")[0], "</think>")
    kept = http.post("/v1/chat/completions", json={**body, "stop": "</think>", "include_stop_str_in_output": True}).json()["choices"][0]
    assert kept["message"]["content"] == full.split("</think>")[0] + "</think>"
    newline = http.post("/tokenize", json={"prompt": "\n"}).json()["tokens"][0]
    ended = http.post("/v1/chat/completions", json={**body, "stop_token_ids": [newline], "bogus": 1})
    assert ended.json()["choices"][0]["stop_reason"] == newline
    assert ended.headers["x-ignored-fields"] == "bogus"


def test_priorities_prompt_logprobs_and_cached_tokens(http: httpx.Client) -> None:
    prompt = list(range(400, 480))
    body = {"prompt": prompt, "max_tokens": 1, "priority": -3, "prompt_logprobs": 2}
    answer = http.post("/v1/completions", json=body).json()
    entries = answer["choices"][0]["prompt_logprobs"]
    assert len(entries) == 80 and entries[0] is None
    assert all(str(token) in entry for token, entry in zip(prompt[1:], entries[1:], strict=True))
    again = http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1}).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 64


def test_metrics_count_what_happened(http: httpx.Client) -> None:
    def counted(name: str) -> float:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    before = counted("vllm:generation_tokens_total"), counted("vllm:prompt_tokens_total")
    http.post("/v1/completions", json={"prompt": [500, 501, 502], "max_tokens": 7, "ignore_eos": True})
    after = counted("vllm:generation_tokens_total"), counted("vllm:prompt_tokens_total")
    assert (after[0] - before[0], after[1] - before[1]) == (7, 3)
    assert counted("vllm:num_requests_running") == counted("vllm:num_requests_waiting") == 0
    assert 'model_name="first"' in http.get("/metrics").text


def test_every_route_but_liveness_needs_the_key(server: RunningServer, http: httpx.Client) -> None:
    paths = {"/v1/models", "/v1/models/first", "/version", "/load", "/metrics", "/tokenizer_info", "/docs", "/redoc", "/openapi.json"}
    paths |= set(http.get("/openapi.json").json()["paths"]) - OPEN_PATHS
    for path in paths:
        for method in ("GET", "POST", "OPTIONS"):
            assert httpx.request(method, server.url + path).status_code == 401, (method, path)
    assert {httpx.get(server.url + path).status_code for path in OPEN_PATHS} == {200}
    assert http.get("/load").json() == {"server_load": 0}
    assert http.get("/version").json()["version"]


def test_requests_are_not_logged(server: RunningServer) -> None:
    text = server.log.read_text()
    assert "prompt_tokens=" not in text and "POST /v1" not in text
    assert "Traceback" not in text
