"""Reasoning and tool calls end to end, on the bundled model: whole and streamed answers are the same message."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.chats import TOOLS, both, tool
from tests.integration.serving import serve

FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-reasoning", "--reasoning-parser")
QUESTION = "What is 17 + 25?"
WEATHER = "What is the weather in Paris?"
CLOSED = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module", params=["qwen3", "deepseek_r1"])
def server(request, tmp_path_factory):
    log: Path = tmp_path_factory.mktemp("serve") / "log"
    with serve(log, "demo", *FLAGS, request.param, "--max-num-seqs", "8", "--swap-space", "0") as running:
        running.parser = request.param
        yield running


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_reasoning_stands_apart(client):
    choice, usage = both(client, QUESTION)
    message = choice.message
    assert choice.finish_reason == "stop" and message.content.strip() == "42"
    assert "17 + 25" in message.reasoning == message.reasoning_content
    assert "think>" not in message.reasoning + message.content
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


def test_thinking_turned_off_by_the_template(client):
    for fields in ({"extra_body": CLOSED}, {"reasoning_effort": "none"}):
        choice, usage = both(client, QUESTION, **fields)
        assert choice.message.content and choice.message.reasoning is None
        assert usage.completion_tokens_details.reasoning_tokens == 0


def test_thoughts_come_back_as_input(client):
    message = {"role": "assistant", "content": "42", "reasoning": "I add."}
    messages = [{"role": "user", "content": QUESTION}, message, {"role": "user", "content": "Hello!"}]
    assert client.chat.completions.create(model="demo", messages=messages, max_tokens=5).choices


def test_a_tool_call(client):
    choice, _ = both(client, WEATHER, tools=TOOLS)
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert call.id.startswith("chatcmpl-tool-") and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert choice.message.reasoning


@pytest.mark.parametrize("count", range(12, 36))
def test_a_call_cut_off_ends_with_length(client, count):
    whole, usage = both(client, WEATHER, tools=TOOLS)
    cut, _ = both(client, WEATHER, tools=TOOLS, max_tokens=min(count, usage.completion_tokens - 1))
    assert cut.finish_reason == "length"
    for call in cut.message.tool_calls or ():
        assert whole.message.tool_calls[0].function.arguments.startswith(call.function.arguments)


def test_tool_choice_none_hides_the_tools(client):
    choice, _ = both(client, WEATHER, tools=TOOLS, tool_choice="none")
    assert not choice.message.tool_calls and choice.finish_reason == "stop"


@pytest.mark.parametrize("extra", [{}, CLOSED], ids=["thinking", "no thinking"])
@pytest.mark.parametrize("choice", ["required", "named"])
def test_calls_are_enforced(client, choice, extra):
    wanted = "required" if choice == "required" else {"type": "function", "function": {"name": "get_weather"}}
    found, _ = both(client, "Hello!", tools=TOOLS, tool_choice=wanted, extra_body=extra, max_tokens=400, parallel_tool_calls=False)
    assert found.message.content is None
    (call,) = found.message.tool_calls
    assert call.function.name in ("get_weather", "add")
    if choice == "named":
        assert call.function.name == "get_weather"
    if found.finish_reason == "tool_calls":
        assert set(json.loads(call.function.arguments)) in ({"city"}, {"a", "b"})


@pytest.mark.parametrize("extra", [{}, CLOSED], ids=["thinking", "no thinking"])
def test_a_schema_shapes_the_answer_and_not_the_thoughts(client, extra):
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}
    choice, _ = both(client, QUESTION, response_format=wanted, extra_body=extra, max_tokens=300)
    assert choice.finish_reason == "stop" and isinstance(json.loads(choice.message.content)["sum"], int)
    assert bool(choice.message.reasoning) is not bool(extra)
    assert "{" not in (choice.message.reasoning or "")


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_thinking_budget_is_kept(client, server, budget):
    choice, usage = both(client, QUESTION, extra_body={"thinking_budget": budget})
    # The end marker counts; deepseek_r1 takes the start marker, which the model writes itself, for reasoning too.
    assert usage.completion_tokens_details.reasoning_tokens <= budget + 2
    assert choice.message.content


def test_what_cannot_be_asked(client):
    for field, fields in {
        "tool_choice": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "tool_choice.allowed_tools": {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        "thinking_budget": {"extra_body": {"thinking_budget": -1}},
        "reasoning_effort": {"reasoning_effort": "enormous"},
    }.items():
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hi"}], **fields)
        assert error.value.param == field
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hi"}], tool_choice="required")
    assert error.value.param == "tool_choice"


def test_reasoning_can_be_left_out(client):
    choice, _ = both_without_reasoning(client)
    assert choice["message"]["content"].strip() == "42" and "reasoning" not in choice["message"]


def both_without_reasoning(client):
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 200, "include_reasoning": False}
    answer = httpx.post(f"{client.base_url}chat/completions", json=body, timeout=60).json()
    return answer["choices"][0], answer["usage"]


@pytest.mark.parametrize("question", [QUESTION, WEATHER])
def test_tools_and_a_schema_in_one_request(client, question):
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    choice, _ = both(client, question, response_format=wanted, tools=TOOLS)
    if question == WEATHER:
        assert choice.finish_reason == "tool_calls" and choice.message.tool_calls[0].function.name == "get_weather"
    elif choice.message.content is not None:
        assert isinstance(json.loads(choice.message.content)["sum"], int)


@pytest.mark.parametrize("extra", [{}, CLOSED, {"thinking_budget": 3}], ids=["thinking", "off by template", "budget"])
@pytest.mark.parametrize(
    "constraint", [{"guided_choice": ["41", "42"]}, {"guided_regex": "4[0-9]"}, {"guided_grammar": 'root ::= "4" [0-9]'}]
)
def test_a_blank_line_may_separate_thoughts_from_a_constrained_answer(client, server, constraint, extra):
    """The model puts it there; the answer that a client gets is a text of the grammar all the same, to the byte."""
    choice, _ = both(client, QUESTION, extra_body=constraint | extra, logprobs=True)
    assert choice.finish_reason == "stop" and (choice.message.content == "42" or "thinking_budget" in extra)
    assert len(choice.message.content) == 2 and choice.message.content[0] == "4"
    written = "".join(entry.token for entry in choice.logprobs.content)
    if not extra:
        assert "</think>\n\n42" in written
    if extra is CLOSED:
        assert written.startswith("42")


@pytest.mark.parametrize("extra", [{}, CLOSED, {"thinking_budget": 3}], ids=["thinking", "off by template", "budget"])
@pytest.mark.parametrize(
    ("constraint", "beginning"),
    [
        ({"guided_regex": "\n\n4[0-9]"}, "\n\n4"),
        ({"guided_regex": "\n{3}4[0-9]"}, "\n\n\n4"),
        ({"guided_choice": ["\n41", "\n42"]}, "\n4"),
        ({"guided_grammar": 'root ::= "\\n\\n" "4" [0-9]'}, "\n\n4"),
        ({"guided_regex": "\n\n4[0-9]", "guided_decoding_backend": "guidance"}, "\n\n4"),
        ({"guided_regex": "\n\n4[0-9]", "guided_decoding_backend": "outlines"}, "\n\n4"),
    ],
)
def test_line_breaks_that_a_constraint_begins_with_are_the_answer_s(client, constraint, beginning, extra):
    if "guided_decoding_backend" in constraint:
        pytest.importorskip({"guidance": "llguidance", "outlines": "outlines_core"}[constraint["guided_decoding_backend"]])
    choice, _ = both(client, QUESTION, extra_body=constraint | extra)
    assert choice.finish_reason == "stop"
    assert choice.message.content[:-1] == beginning and choice.message.content[-1].isdigit()


def schema_of(value):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value, "strict": True}}


LETTERS = {"na\u00efve \u043a\u043b\u044e\u0447 \u9375 \U0001f600": {"const": "\u65e5\u672c"}, 'quote"back\\slash\n': {"type": "boolean"}}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "object", "properties": LETTERS, "required": list(LETTERS), "additionalProperties": False},
        {"enum": ["\u65e5\u672c\u8a9e", "\u00fc\u0000", '"q"', "\\"]},
        {"enum": [1, "a", None, True, {"x": [1]}, 2.5]},
        {"anyOf": [{"type": "integer", "maximum": 99, "minimum": 0}, {"type": "null"}]},
        {"$defs": {"a/b~c": {"type": "boolean"}}, "$ref": "#/$defs/a~1b~0c"},
        {"type": "object", "properties": {}, "additionalProperties": False},
    ],
    ids=["keys in many scripts", "values in many scripts", "values of many types", "no type", "an escaped reference", "no properties"],
)
def test_schemas_that_are_odd_and_right(client, value):
    jsonschema = pytest.importorskip("jsonschema")
    if "~1" in str(value.get("$ref")):
        pytest.importorskip("llguidance")  # xgrammar leaves it to another backend
    choice, _ = both(client, QUESTION, response_format=schema_of(value), extra_body=CLOSED, max_tokens=200)
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), value)


def test_texts_that_begin_within_a_character_are_forced_as_well(client):
    for words in (["\u65e5\u672c\u8a9e"], ["\u00fcber", "\u00fcbel"], ["\U0001f600\U0001f601"]):
        choice, _ = both(client, QUESTION, extra_body={"guided_choice": words} | CLOSED)
        assert choice.message.content in words


def test_numbers_that_no_machine_holds_are_refused(client):
    wide = {"type": "integer", "minimum": 10**30}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": wide}}}}
    for fields in ({"response_format": schema_of(wide)}, {"tools": [tool], "tool_choice": "required"}):
        with pytest.raises(openai.BadRequestError, match="64 bits"):
            client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x"}], **fields)


def test_a_strict_tool_is_enforced_or_refused(client):
    unique = {"type": "object", "properties": {"n": {"type": "array", "uniqueItems": True, "maxItems": 2}}, "required": ["n"]}
    for strict in (True, False):
        tool = {"type": "function", "function": {"name": "f", "parameters": unique, "strict": strict}}
        asked = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "tools": [*TOOLS, tool], "max_tokens": 5}
        named = {"type": "function", "function": {"name": "add"}}
        assert client.chat.completions.create(**asked, tool_choice=named).choices, "another tool is called"
        if strict:
            with pytest.raises(openai.BadRequestError, match=r"tools\[\d\]\.function\.parameters cannot be enforced.*uniqueItems"):
                client.chat.completions.create(**asked, tool_choice="required")
        else:
            assert client.chat.completions.create(**asked, tool_choice="required").choices


@pytest.mark.parametrize("extra", [{}, CLOSED], ids=["thinking", "no thinking"])
def test_a_strict_tool_is_held_to_its_schema_where_the_model_chooses_to_call(client, extra):
    for cities in (["Rome", "Oslo"], ["Paris, Texas"]):
        weather = tool("get_weather", city="string")
        weather["function"]["parameters"]["properties"]["city"]["enum"] = cities
        weather["function"]["strict"] = True
        choice, _ = both(client, WEATHER, tools=[weather, TOOLS[1]], extra_body=extra)
        assert choice.finish_reason == "tool_calls"
        for call in choice.message.tool_calls:
            assert json.loads(call.function.arguments)["city"] in cities
        for seed in range(3):
            drawn = {"temperature": 1, "seed": seed, "parallel_tool_calls": False}
            choice, _ = both(client, WEATHER, tools=[weather, TOOLS[1]], extra_body=extra, **drawn)
            for call in (choice.message.tool_calls or ()) if choice.finish_reason == "tool_calls" else ():
                arguments = json.loads(call.function.arguments)
                assert call.function.name == "add" or arguments["city"] in cities


def test_the_answer_beside_a_strict_tool_has_no_line_breaks_of_the_markup(client):
    """Its text is free, so what stands between the thinking and it belongs to neither."""
    strict = [{**each, "function": each["function"] | {"strict": True}} for each in TOOLS]
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Sunny, 21 degrees."},
    ]
    plain, _ = both(client, WEATHER, messages=messages, tools=TOOLS)
    choice, _ = both(client, WEATHER, messages=messages, tools=strict)
    assert choice.message.reasoning_content == plain.message.reasoning_content
    assert choice.message.content == plain.message.content


def test_a_strict_tool_that_cannot_be_enforced_is_refused_where_the_model_chooses(client):
    unique = {"type": "object", "properties": {"n": {"type": "array", "uniqueItems": True, "maxItems": 2}}, "required": ["n"]}
    odd = {"type": "function", "function": {"name": "f", "parameters": unique, "strict": True}}
    asked = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "tools": [*TOOLS, odd], "max_tokens": 5}
    with pytest.raises(openai.BadRequestError, match=r"tools\[2\]\.function\.parameters cannot be enforced.*uniqueItems"):
        client.chat.completions.create(**asked)
    assert client.chat.completions.create(**asked, tool_choice="none").choices
