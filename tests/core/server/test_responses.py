"""POST /v1/responses: what comes in, what goes out, and that a stream adds up to the whole."""

from __future__ import annotations

import json

import openai
import pytest

from tests.core.server.fake_client import FakeClient
from tests.core.server.parsed import CALLS, SCRIPT, TEXT, THOUGHT, parsed, speaking
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import in_memory, make_config, on_socket

TOOLS = [
    {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"type": "web_search"},
    {"type": "namespace", "name": "mcp", "tools": []},
    {"type": "function", "name": "get_time", "description": "now", "strict": False},
]
ASKED = {"model": "toy", "input": "hi", "tools": TOOLS}
#: The order in which the events of an item may come.
ORDER = {
    "reasoning": ["output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"],
    "message": ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"],
    "function_call": ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"],
}


def events_of(text):
    """Events of a stream's text; each is named as its data says."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    assert [event.get("sequence_number") for event in found] == list(range(len(found)))
    return found


def steady(response):
    """A response without what differs from one to the next."""
    text = json.dumps({key: value for key, value in response.items() if key not in ("created_at", "completed_at")})
    plain = json.loads(text.replace(response["id"].removeprefix("resp_"), "ID"))
    for item in plain["output"]:
        item.pop("call_id", None)
    return plain


@pytest.mark.parametrize("per_step", [1, 3, 1000])
async def test_thoughts_text_and_calls(per_step):
    async with in_memory(speaking(SCRIPT, per_step=per_step), **parsed()) as http:
        answer = await http.post("/v1/responses", json=ASKED)
        streamed = await http.post("/v1/responses", json={**ASKED, "stream": True})
    whole = answer.json()
    assert answer.headers["x-ignored-types"] == "web_search, namespace"
    reasoning, message, *calls = whole["output"]
    assert whole["status"] == "completed" and whole["incomplete_details"] is None
    assert reasoning["content"] == [{"type": "reasoning_text", "text": THOUGHT}]
    assert message["content"][0]["text"].strip() == TEXT and message["role"] == "assistant"
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [(name, json.loads(text)) for name, text in CALLS]
    assert len({call["call_id"] for call in calls}) == 2
    usage = whole["usage"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    events = events_of(streamed.text)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed" and steady(events[-1]["response"]) == steady(whole)
    _check_items(events[2:-1], events[-1]["response"]["output"])


def _check_items(events, output):
    """Each item begins and ends before the next, in order, and its pieces make the whole."""
    for index, item in enumerate(output):
        mine = [event for event in events if event["output_index"] == index]
        kinds = [event["type"].removeprefix("response.") for event in mine]
        order = [*ORDER[item["type"]], "output_item.done"]
        assert sorted(kinds, key=order.index) == kinds and set(kinds) == set(order)
        assert mine[-1]["item"] == item and item["status"] == "completed"
        assert {event["item_id"] for event in mine if "item_id" in event} == {item["id"]}
        pieces = "".join(event["delta"] for event in mine if "delta" in event)
        assert pieces == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
    assert [event["output_index"] for event in events] == sorted(event["output_index"] for event in events)


@pytest.mark.parametrize("stop", range(1, len(speaking(SCRIPT).script), 6))
async def test_a_cut_answer_is_incomplete(stop):
    async with in_memory(speaking(SCRIPT), **parsed()) as http:
        asked = {**ASKED, "max_output_tokens": stop}
        whole = (await http.post("/v1/responses", json=asked)).json()
        events = events_of((await http.post("/v1/responses", json={**asked, "stream": True})).text)
    assert whole["status"] == "incomplete" and whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert whole["usage"]["output_tokens"] == stop and whole["output"][-1]["status"] == "incomplete"
    assert events[-1]["type"] == "response.incomplete" and steady(events[-1]["response"]) == steady(whole)


async def test_a_conversation_is_rendered_as_chat_renders_it():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "think"}], "encrypted_content": None},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        {"role": "assistant", "content": "Sunny at noon."},
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "thanks"},
    ]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "I look.", "reasoning": "think", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": "Sunny at noon."},
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "thanks"},
    ]
    template = "{% for m in messages %}{{ m|tojson }}\n{% endfor %}{{ tools|tojson }}"
    async with in_memory(config=make_config(max_model_len=4096), tokenizer=byte_tokenizer(template=template)) as http:
        await http.post("/v1/responses", json={"input": items, "instructions": "be kind", "max_output_tokens": 1})
        await http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1})
        first, second = (request.prompt_token_ids for request in http.engine.seen)
    assert first == second


REFUSED = {
    "previous_response_id": ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    "conversation": ({"input": "x", "conversation": "conv_1"}, "conversation"),
    "prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "background": ({"input": "x", "background": True}, "background"),
    "no input": ({}, "input"),
    "empty input": ({"input": []}, "input"),
    "input type": ({"input": 3}, "input"),
    "item type": ({"input": ["x"]}, "input[0]"),
    "role": ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    "image": ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]}, "input[0].content[0].type"),
    "call": ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    "output": ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    "reference": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    "tool": ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
    "tools type": ({"input": "x", "tools": ["f"]}, "tools[0]"),
    "choice": ({"input": "x", "tool_choice": {"type": "file_search"}}, "tool_choice"),
    "choice of nothing": ({"input": "x", "tool_choice": "required"}, "tool_choice"),
    "max_output_tokens": ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    "too many": ({"input": "x", "max_output_tokens": 100000}, "max_output_tokens"),
    "too long": ({"input": "word " * 10000}, "input"),
    "temperature": ({"input": "x", "temperature": -1}, "temperature"),
    "format": ({"input": "x", "text": {"format": {"type": "yaml"}}}, "text.format.type"),
    "schema": ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    "logprobs": ({"input": "x", "include": ["message.output_text.logprobs"]}, "include"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_name_the_field(name):
    body, param = REFUSED[name]
    async with in_memory(**parsed()) as http:
        response = await http.post("/v1/responses", json={"model": "toy", **body})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param or (name == "too many" and error["param"] in ("input", param)), error
        assert not http.engine.seen


@pytest.mark.parametrize("body", [{"input": ""}, {"input": [], "instructions": "x"}, {"input": "", "tools": TOOLS[1:3]}])
async def test_probes_with_empty_input_are_answered(body):
    async with in_memory() as http:
        assert (await http.post("/v1/responses", json={"model": "toy", "max_output_tokens": 1, **body})).status_code == 200


async def test_responses_are_not_kept():
    async with in_memory() as http:
        for path, send in (("/v1/responses/resp_1", http.get), ("/v1/responses/resp_1/cancel", http.post)):
            response = await send(path)
            assert response.status_code == 404 and "keeps none" in response.json()["error"]["message"]


async def test_a_failure_is_an_event_or_a_500():
    client = FakeClient()
    client.fail_after = 3
    async with in_memory(client) as http:
        assert (await http.post("/v1/responses", json={"input": "x"})).status_code == 500
        events = events_of((await http.post("/v1/responses", json={"input": "x", "stream": True})).text)
    assert events[-1]["type"] == "response.failed"
    assert "the logits are not finite" in events[-1]["response"]["error"]["message"]


async def test_the_openai_package_reads_it():
    async with on_socket(speaking(SCRIPT), **parsed()) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as sdk:
        whole = await sdk.responses.create(model="toy", input="hi", tools=TOOLS)
        assert whole.output_text.strip() == TEXT and [item.type for item in whole.output[2:]] == ["function_call"] * 2
        async with sdk.responses.stream(model="toy", input="hi", tools=TOOLS) as stream:
            texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
    assert "".join(texts) == final.output_text == whole.output_text
    assert [item.arguments for item in final.output[2:]] == [item.arguments for item in whole.output[2:]]
