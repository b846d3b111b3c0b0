"""The anthropic package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.asked import ANSWER, CITY, IDENTITY, REPORT, SENTENCE, WEATHER, WHO, ZOE, Person

anthropic = pytest.importorskip("anthropic", reason="the anthropic package is not installed")

TOOL = {"name": "get_weather", "description": "Get the weather of a city", "input_schema": CITY}
OFF = {"type": "disabled"}
#: The package has no parameter of that name any more, the API has.
GREEDY = {"temperature": 0}


@pytest.fixture
def sdk(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def user(text):
    return [{"role": "user", "content": text}]


def test_a_message(sdk):
    answer = sdk.messages.create(model="demo", max_tokens=100, messages=user(WHO), extra_body=GREEDY, thinking=OFF)
    assert [block.text for block in answer.content] == [IDENTITY]
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0


def test_a_stream_with_thinking(sdk):
    with sdk.messages.stream(
        model="demo", max_tokens=200, messages=user(WHO), extra_body=GREEDY, thinking={"type": "enabled", "budget_tokens": 64},
        system=[{"type": "text", "text": "You are a helpful assistant.", "cache_control": {"type": "ephemeral"}}],
    ) as stream:  # fmt: skip
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    thinking, text = final.content
    assert thinking.thinking and thinking.signature and "".join(texts) == text.text and "demo" in text.text
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_tools(sdk, choice, streamed):
    messages = user(WEATHER)
    options = {"model": "demo", "max_tokens": 200, "tools": [TOOL], "extra_body": GREEDY}
    if streamed:
        with sdk.messages.stream(messages=messages, tool_choice=choice, **options) as stream:
            asked = stream.get_final_message()
    else:
        asked = sdk.messages.create(messages=messages, tool_choice=choice, **options)
    (call,) = [block for block in asked.content if block.type == "tool_use"]
    assert call.name == "get_weather" and call.input == {"city": "Paris"} and asked.stop_reason == "tool_use"
    messages += [
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": REPORT}]},
    ]
    answer = sdk.messages.create(messages=messages, **options)
    assert answer.content[-1].text.strip() == ANSWER and answer.stop_reason == "end_turn"


def test_a_schema(sdk):
    answer = sdk.messages.parse(
        model="demo", max_tokens=100, messages=user(SENTENCE), output_format=Person, extra_body=GREEDY, thinking=OFF
    )
    assert answer.parsed_output == ZOE


def test_tokens_are_counted_as_they_are_used(sdk):
    counted = sdk.messages.count_tokens(model="demo", messages=user(WEATHER), tools=[TOOL], system="Be brief.")
    used = sdk.messages.create(model="demo", max_tokens=1, messages=user(WEATHER), tools=[TOOL], system="Be brief.").usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens


def test_errors(sdk):
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        sdk.messages.create(model="claude", max_tokens=1, messages=user(WHO))
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        sdk.messages.create(model="demo", max_tokens=1, messages=user("word " * 5000))
