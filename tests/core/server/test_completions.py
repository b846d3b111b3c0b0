"""Completions: what evaluation harnesses and bench clients rely on."""

from __future__ import annotations

import pytest

from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import in_memory, make_config

TOKENIZER = byte_tokenizer()


async def ask(http, **body):
    answer = await http.post("/v1/completions", json={"model": "toy", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_harness_scores_prompts():
    """lm-evaluation-harness: lists of ids, echo, one token, and equality of floats for the greedy flag."""
    prompts = [[5, 6, 7, 8], [100, 101], [9]]
    async with in_memory() as http:
        answer = await ask(http, prompt=prompts, max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234)
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
        for prompt, choice in zip(prompts, answer["choices"], strict=True):
            logprobs = choice["logprobs"]
            assert len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == len(prompt) + 1
            assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
            for value, top in zip(logprobs["token_logprobs"][1:-1], logprobs["top_logprobs"][1:-1], strict=True):
                assert value == max(top.values())
            assert choice["text"].startswith(TOKENIZER.decode(prompt))
        assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


async def test_scoring_only():
    async with in_memory() as http:
        answer = await ask(http, prompt="hello", max_tokens=0, echo=True, logprobs=2)
        choice = answer["choices"][0]
        assert choice["text"] == "hello" and choice["finish_reason"] == "length"
        assert len(choice["logprobs"]["tokens"]) == len(TOKENIZER.encode("hello"))
        assert answer["usage"]["completion_tokens"] == 0
        assert http.engine.seen[0].params.max_tokens == 1


async def test_best_of_returns_the_best_and_counts_all():
    client = FakeClient()
    scores = {}
    original = client._outputs

    async def ranked(request):
        async for output in original(request):
            place = len(scores.setdefault(request.id, []))
            scores[request.id].append(place)
            value = -float(1 + len(client.seen) - [seen.id for seen in client.seen].index(request.id))
            entries = [type(entry)(entry.token_id, value, 1, [], []) for entry in output.logprobs]
            yield type(output)(id=output.id, token_ids=output.token_ids, logprobs=entries, finish_reason=output.finish_reason)

    client._outputs = ranked
    async with in_memory(client) as http:
        answer = await ask(http, prompt="hello", n=2, best_of=4, max_tokens=3, seed=1)
        assert len(answer["choices"]) == 2 and [choice["index"] for choice in answer["choices"]] == [0, 1]
        assert answer["usage"]["completion_tokens"] == 12
        assert answer["choices"][0]["logprobs"] is None
        assert len({request.params.seed for request in client.seen}) == 4


async def test_defaults_and_what_reaches_the_engine():
    config = make_config(default_sampling={"temperature": 0.5, "top_k": 9}, max_new_tokens=30)
    async with in_memory(config=config) as http:
        await ask(http, prompt="hello")
        await ask(http, prompt="hello", max_tokens=100, temperature=0.25, ignore_eos=True, stop=None, logprobs=None, min_tokens=3)
        limits = {"logit_bias": {"7": 2}, "allowed_token_ids": [1, 2], "bad_words": ["he"]}
        await ask(http, prompt=[1, 2, 3], max_tokens=4, seed=-5, n=2, temperature=1, **limits)
        first, second, third, fourth = (request.params for request in http.engine.seen)
        assert (first.temperature, first.top_k, first.max_tokens) == (0.5, 9, 16) and first.seed is not None
        assert (second.temperature, second.max_tokens, second.ignore_eos, second.min_tokens) == (0.25, 30, True, 3)
        assert (third.seed, fourth.seed, third.n) == (-5, -4, 1)
        assert third.logit_bias == {7: 2.0} and third.allowed_token_ids == (1, 2) and third.bad_words_ids
        assert http.engine.seen[0].eos_token_ids == (TOKENIZER.eos_token_id,)
        assert http.engine.seen[2].group == http.engine.seen[3].group is not None


async def test_default_length_is_clipped_to_the_context():
    async with in_memory(config=make_config(max_model_len=20)) as http:
        answer = await ask(http, prompt=[1] * 15)
        assert answer["usage"]["completion_tokens"] == 5 and answer["choices"][0]["finish_reason"] == "length"


async def test_truncation_on_request():
    async with in_memory() as http:
        answer = await ask(http, prompt="abcdef" * 1000, truncate_prompt_tokens=3, max_tokens=1)
        assert answer["usage"]["prompt_tokens"] == 3


async def test_stop_token_ids_and_reasons():
    script = TOKENIZER.encode("ab!cd")
    async with in_memory(FakeClient(script=script)) as http:
        answer = await ask(http, prompt="x", stop_token_ids=[script[2]])
        choice = answer["choices"][0]
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("ab", "stop", script[2])
        assert answer["usage"]["completion_tokens"] == 3
        assert (await ask(http, prompt="x"))["choices"][0]["stop_reason"] is None


async def test_prompt_logprobs():
    async with in_memory() as http:
        choice = (await ask(http, prompt=[5, 6, 7], prompt_logprobs=2, max_tokens=1))["choices"][0]
        assert choice["prompt_logprobs"][0] is None and len(choice["prompt_logprobs"]) == 3
        assert choice["prompt_logprobs"][1]["6"]["rank"] == 1 and len(choice["prompt_logprobs"][1]) == 2


async def test_token_ids_instead_of_texts():
    async with in_memory() as http:
        body = {"prompt": [5], "logprobs": 1, "max_tokens": 2, "return_tokens_as_token_ids": True}
        assert all(token.startswith("token_id:") for token in (await ask(http, **body))["choices"][0]["logprobs"]["tokens"])
    async with in_memory(config=make_config(return_tokens_as_token_ids=True)) as http:
        del body["return_tokens_as_token_ids"]
        assert (await ask(http, **body))["choices"][0]["logprobs"]["tokens"][0].startswith("token_id:")


async def test_without_a_tokenizer():
    async with in_memory(tokenizer=None) as http:
        answer = await ask(http, prompt=[1, 2], max_tokens=3, logprobs=0)
        assert answer["choices"][0]["text"] == "" and answer["choices"][0]["logprobs"]["tokens"][0].startswith("token_id:")
        refused = await http.post("/v1/completions", json={"prompt": "text"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "prompt"


TOLERATED = [{"tool_choice": None, "tools": []}, {"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"logprobs": None}]


@pytest.mark.parametrize("fields", TOLERATED)
async def test_chat_tolerates(fields):
    async with in_memory() as http:
        answer = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, **fields})
        assert answer.status_code == 200, answer.text


async def test_chat_continues_a_message_and_reads_reasoning():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning": "r", "reasoning_content": "r"}]
    body = {"messages": messages, "max_tokens": 2, "add_generation_prompt": False, "continue_final_message": True, "echo": True}
    async with in_memory() as http:
        answer = (await http.post("/v1/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"]["content"].startswith("b")
        assert TOKENIZER.decode(http.engine.seen[0].prompt_token_ids, skip_special_tokens=False).endswith("assistant\nb")


async def test_chat_without_a_template():
    tokenizer = byte_tokenizer()
    tokenizer._template = None
    async with in_memory(tokenizer=tokenizer) as http:
        answer = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        assert answer.status_code == 400 and "--chat-template" in answer.json()["error"]["message"]
    async with in_memory(tokenizer=tokenizer, config=make_config(chat_template="{{ messages[0].content }}")) as http:
        answer = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
        assert answer.json()["usage"]["prompt_tokens"] == 1


async def test_tokenize_and_back():
    async with in_memory() as http:
        tokens = (await http.post("/tokenize", json={"prompt": "hello world"})).json()
        assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] == 512
        assert (await http.post("/detokenize", json={"tokens": tokens["tokens"]})).json() == {"prompt": "hello world"}
        chat = (await http.post("/tokenize", json={"messages": [{"role": "user", "content": "hi"}], "return_token_strs": True})).json()
        assert chat["token_strs"][0] == "<|im_start|>"
        assert (await http.post("/detokenize", json={"tokens": [10**6]})).status_code == 400
        assert (await http.post("/tokenize", json={})).status_code == 400
        info = (await http.get("/tokenizer_info")).json()
        assert info["eos_token"] == "</s>" and info["bos_token"] == "<s>" and "im_start" in info["chat_template"]
