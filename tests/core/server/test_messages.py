"""POST /v1/messages and count_tokens: what comes in, what goes out, and that a stream adds up to the whole."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.server.keepalive import kept_alive
from tests.core.server.fake_client import FakeClient
from tests.core.server.parsed import CALLS, SCRIPT, TEXT, THOUGHT, parsed, speaking
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import in_memory, make_config

TOOLS = [
    {"name": "get_weather", "description": "now", "input_schema": {"type": "object"}},
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "custom", "name": "get_time", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
]
HELLO = [{"role": "user", "content": "hi"}]
ASKED = {"model": "toy", "max_tokens": 400, "messages": HELLO, "tools": TOOLS}
#: Every message as JSON, one per line: what is rendered is what was understood.
SHOWN = "{% for m in messages %}{{ m|tojson }}\n{% endfor %}{{ tools|tojson }}{{ enable_thinking }}{{ thinking_budget }}"


def events_of(text):
    """Events of a stream's text; each is named as its data says."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def folded(events):
    """The message that a stream adds up to, as clients build it."""
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    message, inputs = dict(events[0]["message"]), {}
    assert message["content"] == [] and message["usage"]["input_tokens"] > 0
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"]) and "signature" not in event["content_block"]
            message["content"].append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            else:
                key = delta["type"].removesuffix("_delta")
                block[key] = block.get(key, "") + delta[key]
        else:
            assert event == {"type": "content_block_stop", "index": len(message["content"]) - 1}
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text)
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def steady(message):
    """A message without what differs from one to the next."""
    blocks = [{key: value for key, value in block.items() if key not in ("id", "citations")} for block in message["content"]]
    return {key: value for key, value in message.items() if key != "id"} | {"content": blocks}


@pytest.mark.parametrize("per_step", [1, 3, 1000])
async def test_thoughts_text_and_calls(per_step):
    async with in_memory(speaking(SCRIPT, per_step=per_step), **parsed()) as http:
        answer = await http.post("/v1/messages?beta=true", json=ASKED)
        streamed = await http.post("/v1/messages", json={**ASKED, "stream": True})
    whole = answer.json()
    assert answer.headers["x-ignored-types"] == "web_search_20250305"
    thinking, text, *calls = whole["content"]
    assert thinking["thinking"] == THOUGHT and thinking["signature"]
    assert text["type"] == "text" and text["text"].strip() == TEXT
    assert [(call["name"], call["input"]) for call in calls] == [(name, json.loads(given)) for name, given in CALLS]
    assert whole["stop_reason"] == "tool_use" and whole["stop_sequence"] is None and whole["role"] == "assistant"
    assert 0 < whole["usage"]["output_tokens_details"]["thinking_tokens"] < whole["usage"]["output_tokens"]
    assert steady(folded(events_of(streamed.text))) == steady(whole)


@pytest.mark.parametrize(
    ("options", "reason", "sequence"),
    [({}, "end_turn", None), ({"max_tokens": 3}, "max_tokens", None), ({"stop_sequences": ["wör"]}, "stop_sequence", "wör")],
)
async def test_why_it_ended(options, reason, sequence):
    body = {"model": "toy", "max_tokens": 50, "messages": HELLO, **options}
    async with in_memory(speaking("hello wörld")) as http:
        whole = (await http.post("/v1/messages", json=body)).json()
        streamed = folded(events_of((await http.post("/v1/messages", json={**body, "stream": True})).text))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert steady(streamed) == steady(whole)


async def test_cached_tokens_are_not_input(monkeypatch):
    async with in_memory(speaking("hello")) as http:
        monkeypatch.setattr("engine.server.generation.Generation.cached_tokens", lambda self: 5)
        usage = (await http.post("/v1/messages", json={"model": "toy", "max_tokens": 5, "messages": HELLO})).json()["usage"]
        counted = (await http.post("/v1/messages/count_tokens", json={"model": "toy", "messages": HELLO})).json()
    assert usage["cache_read_input_tokens"] == 5
    assert counted == {"input_tokens": usage["input_tokens"] + 5} == {"input_tokens": len(http.engine.seen[0].prompt_token_ids)}


async def rendered(**body):
    """The messages as the template sees them."""
    async with in_memory(config=make_config(max_model_len=8192), tokenizer=byte_tokenizer(template=SHOWN)) as http:
        response = await http.post("/v1/messages", json={"max_tokens": 1, **body})
        assert response.status_code == 200, response.text
        counted = await http.post("/v1/messages/count_tokens", json={key: body[key] for key in body if key != "max_tokens"})
        ids = http.engine.seen[0].prompt_token_ids
        assert counted.json()["input_tokens"] == len(ids)
    lines = byte_tokenizer().decode(ids, skip_special_tokens=False).split("\n")
    return [json.loads(line) for line in lines[:-1]], lines[-1]


CONVERSATION = [
    {"role": "user", "content": [{"type": "text", "text": "weather?"}, {"type": "text", "text": "now", "cache_control": {}}]},
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "I look.", "signature": "x"}, {"type": "redacted_thinking", "data": "…"},
        {"type": "text", "text": "Wait."}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "é"}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    ]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True}, {"type": "text", "text": "and?"},
    ]},
    {"role": "user", "content": "please"},
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}}]},
]  # fmt: skip


async def test_a_conversation_becomes_chat_messages_in_place():
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "You help.", "cache_control": {}}]
    messages, end = await rendered(messages=CONVERSATION, system=system)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "user", "system", "user"]
    assert messages[0]["content"] == "You help." and messages[1]["content"] == "weather?\nnow"
    assert messages[2]["content"] == "Wait." and messages[2]["reasoning"] == "I look."
    assert [(call["id"], call["function"]) for call in messages[2]["tool_calls"]] == [
        ("t1", {"name": "f", "arguments": {"a": "é"}}), ("t2", {"name": "g", "arguments": {}}),
    ]  # fmt: skip
    assert [(message["tool_call_id"], message["content"]) for message in messages[3:5]] == [("t1", "sunny"), ("t2", "error")]
    assert [message["content"] for message in messages[5:]] == ["and?\nplease", "be brief", "doc"]
    assert end == "null"


@pytest.mark.parametrize("line", ["x-anthropic-billing-header: cc=1; cch={};", "x-anthropic-billing-header: cch={};\nYou help."])
async def test_the_billing_line_does_not_spoil_the_prefix(line):
    """Requests that differ in it alone have one prompt."""
    blocks = lambda number: [{"type": "text", "text": line.format(number)}, {"type": "text", "text": "More."}]  # noqa: E731
    first, second = [await rendered(messages=HELLO, system=blocks(number)) for number in (1, 2)]
    assert first == second and "billing" not in str(first)
    assert first[0][0]["content"] == ("You help.\nMore." if "You" in line else "More.")


@pytest.mark.parametrize(
    ("thinking", "end"),
    [
        (None, "null"), ({"type": "adaptive"}, "null"), ({"type": "disabled"}, "nullFalse"),
        ({"type": "enabled", "budget_tokens": 64}, "nullTrue64"),
    ],
)  # fmt: skip
async def test_thinking_is_a_switch_of_the_template(thinking, end):
    assert (await rendered(messages=HELLO, thinking=thinking))[1] == end


async def test_an_answer_that_is_begun_goes_on():
    async with in_memory(speaking("llo")) as http:
        begun = [*HELLO, {"role": "assistant", "content": "he"}]
        answer = (await http.post("/v1/messages", json={"max_tokens": 9, "messages": begun})).json()
        prompt = byte_tokenizer().decode(http.engine.seen[0].prompt_token_ids, skip_special_tokens=False)
    assert answer["content"][0]["text"] == "llo" and prompt.endswith("<|im_start|>assistant\nhe")


async def test_thinking_can_be_omitted():
    async with in_memory(speaking(SCRIPT), **parsed()) as http:
        answer = await http.post("/v1/messages", json={**ASKED, "thinking": {"type": "adaptive", "display": "omitted"}})
    assert [block["type"] for block in answer.json()["content"]] == ["text", "tool_use", "tool_use"]


REFUSED = {
    "no max_tokens": {"max_tokens": None},
    "max_tokens": {"max_tokens": 0},
    "no messages": {"messages": []},
    "role": {"messages": [{"role": "tool", "content": "x"}]},
    "image": {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
    "tool_use": {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": "x"}]}]},
    "tool_result": {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
    "content": {"messages": [{"role": "user", "content": 3}]},
    "system": {"system": [{"type": "text", "text": 3}]},
    "tool": {"tools": [{"name": "f"}]},
    "tool_choice": {"tool_choice": {"type": "often"}},
    "tool_choice any": {"tool_choice": {"type": "any"}},
    "thinking": {"thinking": {"type": "deep"}},
    "budget": {"thinking": {"type": "enabled", "budget_tokens": 0}},
    "temperature": {"temperature": -1},
    "stop": {"stop_sequences": [""]},
    "format": {"output_config": {"format": {"type": "json_schema"}}},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_have_this_apis_shape(name):
    async with in_memory(**parsed()) as http:
        response = await http.post("/v1/messages", json={"model": "toy", "max_tokens": 5, "messages": HELLO, **REFUSED[name]})
        assert response.status_code == 400 and not http.engine.seen, response.text
        assert response.json()["type"] == "error" and response.json()["error"]["type"] == "invalid_request_error"


async def test_errors_of_every_layer_have_this_apis_shape():
    keyed = make_config(api_keys=("sekret",))
    async with in_memory(config=keyed) as http:
        wrong = await http.post("/v1/messages", json=ASKED, headers={"x-api-key": "no"})
        assert wrong.status_code == 401 and wrong.json()["error"]["type"] == "authentication_error"
        assert "object" in (await http.get("/v1/models")).json()
        for headers in ({"x-api-key": "sekret"}, {"authorization": "Bearer sekret"}):
            missing = await http.post("/v1/messages", json={**ASKED, "model": "claude"}, headers=headers)
            assert missing.status_code == 404 and missing.json()["error"]["type"] == "not_found_error"
        assert (await http.get("/v1/messages", headers=headers)).json()["type"] == "error"
        assert (await http.post("/v1/messages/other", headers=headers)).json()["error"]["type"] == "not_found_error"


async def test_a_failure_is_an_event_or_a_500():
    client = FakeClient()
    client.fail_after = 3
    body = {"max_tokens": 9, "messages": HELLO}
    async with in_memory(client) as http:
        failed = await http.post("/v1/messages", json=body)
        events = events_of((await http.post("/v1/messages", json={**body, "stream": True})).text)
    assert failed.status_code == 500 and failed.json()["error"]["type"] == "api_error"
    assert events[-1]["type"] == "error" and "the logits are not finite" in events[-1]["error"]["message"]


async def test_a_quiet_stream_pings():
    closed = []

    async def quiet():
        try:
            for number in range(2):
                await asyncio.sleep(0.1)
                yield number
        finally:
            closed.append(True)

    events = [event async for event in kept_alive(quiet(), "ping", seconds=0.03)]
    assert [event for event in events if event != "ping"] == [0, 1] and events.count("ping") >= 4 and closed == [True]
    stream = kept_alive(quiet(), "ping", seconds=0.01)
    assert await anext(stream) == "ping"
    await stream.aclose()
    assert closed == [True, True]
