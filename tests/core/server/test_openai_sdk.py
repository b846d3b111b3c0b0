"""The openai package against the server on a socket: streamed and whole answers are the same."""

from __future__ import annotations

import openai
import pytest

from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import make_config, on_socket

TEXT = "héllo wörld 🤖, say STOP or not; 日本語"
MESSAGES = [{"role": "system", "content": "be nice"}, {"role": "user", "content": "hello"}]
OPTIONS = {
    "plain": {"max_tokens": 20},
    "to the end": {},
    "seeded": {"max_tokens": 20, "seed": 5, "n": 3},
    "stop": {"max_tokens": 100, "stop": ["STOP", "zzz"]},
    "stop kept": {"max_tokens": 100, "stop": "STOP", "extra_body": {"include_stop_str_in_output": True}},
    "logprobs": {"max_tokens": 20, "logprobs": True, "top_logprobs": 3},
    "echo": {"max_tokens": 5, "extra_body": {"echo": True}},
}


def client_of(url):
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("per_step", [1, 4])
@pytest.mark.parametrize("name", OPTIONS)
async def test_chat_streamed_is_whole(name, scripted, per_step):
    script = byte_tokenizer().encode(TEXT) if scripted else None
    options = {"seed": 1, **OPTIONS[name]}
    async with on_socket(FakeClient(script=script, per_step=per_step)) as url, client_of(url) as sdk:
        whole = await sdk.chat.completions.create(model="toy", messages=MESSAGES, **options)
        stream = await sdk.chat.completions.create(
            model="toy", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **options
        )
        texts, roles, reasons, logprobs, usage = {}, {}, {}, {}, None
        async for chunk in stream:
            assert chunk.object == "chat.completion.chunk"
            if not chunk.choices:
                usage = chunk.usage
                continue
            choice = chunk.choices[0]
            assert choice.delta.content is not None or choice.finish_reason
            assert "\ufffd" not in (choice.delta.content or "") or not scripted
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.delta.role:
                assert choice.index not in roles
                roles[choice.index] = choice.delta.role
            if choice.finish_reason:
                reasons[choice.index] = (choice.finish_reason, choice.stop_reason)
            if choice.logprobs:
                logprobs.setdefault(choice.index, []).extend(choice.logprobs.content)
        assert usage == whole.usage
        for choice in whole.choices:
            assert texts[choice.index] == choice.message.content
            assert roles[choice.index] == choice.message.role == "assistant"
            assert reasons[choice.index] == (choice.finish_reason, choice.stop_reason)
            assert (logprobs.get(choice.index) or None) == (choice.logprobs.content if choice.logprobs else None)
        if scripted and name == "stop":
            assert whole.choices[0].message.content == TEXT[: TEXT.index("STOP")]
        if scripted and name == "to the end":
            assert whole.choices[0].message.content == TEXT and whole.choices[0].finish_reason == "stop"
            assert whole.usage.completion_tokens == len(script) + 1


@pytest.mark.parametrize("per_step", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "hello"}, {"prompt": ["hello", "abc def"], "n": 2, "seed": 3}, {"prompt": [5, 6, 7], "logprobs": 2},
        {"prompt": [[5, 6, 7], [8]], "echo": True, "logprobs": 1}, {"prompt": "hello world", "echo": True},
        {"prompt": "x", "max_tokens": 0, "echo": True, "logprobs": 0}, {"prompt": "hello", "n": 2, "echo": True, "logprobs": 1, "seed": 9},
    ],
)  # fmt: skip
async def test_completions_streamed_are_whole(options, per_step):
    options = {"max_tokens": 12, "seed": 1, **options}
    async with on_socket(FakeClient(per_step=per_step)) as url, client_of(url) as sdk:
        whole = await sdk.completions.create(model="toy", **options)
        stream = await sdk.completions.create(model="toy", stream=True, stream_options={"include_usage": True}, **options)
        texts, logprobs, usage = {}, {}, None
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
                if choice.logprobs:
                    entry = logprobs.setdefault(choice.index, {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []})
                    for name, values in entry.items():
                        values += getattr(choice.logprobs, name)
            usage = chunk.usage or usage
        assert usage == whole.usage
        prompts = options["prompt"] if isinstance(options["prompt"], list) and not isinstance(options["prompt"][0], int) else [0]
        assert len(whole.choices) == len(prompts) * options.get("n", 1)
        assert whole.usage.completion_tokens == options["max_tokens"] * len(whole.choices)
        for choice in whole.choices:
            assert texts[choice.index] == choice.text
            if choice.logprobs:
                expected = choice.logprobs.model_dump()
                for name in ("tokens", "token_logprobs", "top_logprobs"):
                    assert logprobs[choice.index][name] == expected[name]


async def test_usage_in_every_chunk_when_asked():
    async with on_socket(FakeClient()) as url, client_of(url) as sdk:
        stream = await sdk.completions.create(
            model="toy", prompt="hi", max_tokens=5, temperature=0, stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )  # fmt: skip
        counts = [chunk.usage.completion_tokens async for chunk in stream]
        assert counts == sorted(counts) and counts[-1] == 5


async def test_models_and_errors():
    async with on_socket(FakeClient(), make_config(api_keys=("sekret",))) as url:
        async with client_of(url) as sdk:
            with pytest.raises(openai.AuthenticationError):
                await sdk.models.list()
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sekret", max_retries=0) as sdk:
            models = await sdk.models.list()
            assert [model.id for model in models.data] == ["toy", "toy-alias"] and models.data[0].max_model_len == 512
            assert (await sdk.models.retrieve("toy-alias")).id == "toy-alias"
            with pytest.raises(openai.NotFoundError, match="toy, toy-alias"):
                await sdk.chat.completions.create(model="gpt", messages=MESSAGES)
            with pytest.raises(openai.BadRequestError) as caught:
                await sdk.chat.completions.create(model="toy", messages=MESSAGES, temperature=-1)
            assert caught.value.param == "temperature" and caught.value.request_id


async def test_a_failure_inside_a_stream_raises():
    client = FakeClient()
    client.fail_after = 3
    async with on_socket(client) as url, client_of(url) as sdk:
        stream = await sdk.chat.completions.create(model="toy", messages=MESSAGES, stream=True, max_tokens=10)
        with pytest.raises(openai.APIError, match="the logits are not finite"):
            async for _ in stream:
                pass
        with pytest.raises(openai.InternalServerError, match="the logits are not finite"):
            await sdk.chat.completions.create(model="toy", messages=MESSAGES, max_tokens=10)
