"""The openai package: its helpers for schemas, tools and streams, in chat and in responses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.clients.asked import ANSWER, CITY, IDENTITY, NO_THINKING, REPORT, SENTENCE, WEATHER, WHO, ZOE, Person

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Get the weather of a city", "parameters": CITY, "strict": True},
}
RESPONSES_TOOL = {"type": "function", **TOOL["function"]}


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def user(text):
    return [{"role": "user", "content": text}]


def test_chat_parse(sdk):
    parsed = sdk.chat.completions.parse(
        model="demo", messages=user(SENTENCE), response_format=Person, temperature=0, extra_body=NO_THINKING
    )
    assert parsed.choices[0].message.parsed == ZOE and parsed.choices[0].finish_reason == "stop"


def test_chat_stream_of_a_schema(sdk):
    with sdk.chat.completions.stream(
        model="demo", messages=user(SENTENCE), response_format=Person, temperature=0, extra_body=NO_THINKING
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == ZOE and "".join(pieces) == final.choices[0].message.content


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
def test_chat_tools(sdk, choice):
    messages = user(WEATHER)
    asked = sdk.chat.completions.parse(model="demo", messages=messages, tools=[TOOL], tool_choice=choice, temperature=0)
    assert asked.choices[0].finish_reason == "tool_calls"
    (call,) = asked.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [asked.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": REPORT}]
    answer = sdk.chat.completions.create(model="demo", messages=messages, tools=[TOOL], temperature=0)
    assert answer.choices[0].message.content == ANSWER


def test_chat_stream_of_a_tool_call(sdk):
    with sdk.chat.completions.stream(
        model="demo", messages=user(WEATHER), tools=[TOOL], temperature=0, stream_options={"include_usage": True}
    ) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert "".join(pieces) == call.function.arguments and json.loads(call.function.arguments) == {"city": "Paris"}
    assert final.usage.completion_tokens_details.reasoning_tokens > 0


def test_responses_text_and_reasoning(sdk):
    plain = sdk.responses.create(model="demo", input=WHO, temperature=0, reasoning={"effort": "none"})
    assert plain.output_text == IDENTITY and plain.status == "completed"
    thought = sdk.responses.create(model="demo", input=WHO, instructions="You are a helpful assistant.", temperature=0)
    assert [item.type for item in thought.output] == ["reasoning", "message"] and thought.output[0].content[0].text
    items = [*user(WHO), *(item.to_dict() for item in thought.output), *user("What is 3 + 4?")]
    again = sdk.responses.create(model="demo", temperature=0, input=items, reasoning={"effort": "none"})
    assert "7" in again.output_text


def test_responses_parse(sdk):
    parsed = sdk.responses.parse(model="demo", input=SENTENCE, text_format=Person, temperature=0, reasoning={"effort": "none"})
    assert parsed.output_parsed == ZOE


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "get_weather"}])
def test_responses_tools(sdk, choice, streamed):
    options = {"model": "demo", "tools": [RESPONSES_TOOL, {"type": "web_search"}], "temperature": 0}
    items = user(WEATHER)
    if streamed:
        with sdk.responses.stream(input=items, tool_choice=choice, **options) as stream:
            pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
            asked = stream.get_final_response()
    else:
        asked, pieces = sdk.responses.create(input=items, tool_choice=choice, **options), None
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "get_weather" and json.loads(call.arguments) == {"city": "Paris"}
    assert pieces is None or "".join(pieces) == call.arguments
    items += [item.to_dict() for item in asked.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": REPORT})
    assert sdk.responses.create(input=items, **options).output_text.strip() == ANSWER


def test_responses_errors(sdk):
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        sdk.responses.create(model="demo", input=WHO, previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve("resp_1")
