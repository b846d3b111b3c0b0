"""LangChain's ChatOpenAI: structured output by every method, tools, streams."""

from __future__ import annotations

import pytest

from tests.clients.asked import ANSWER, IDENTITY, NO_THINKING, REPORT, SENTENCE, WEATHER, WHO, ZOE, Person

langchain_openai = pytest.importorskip("langchain_openai", reason="the langchain-openai package is not installed")


def model(url, **options):
    return langchain_openai.ChatOpenAI(
        model="demo", base_url=f"{url}/v1", api_key="none", temperature=0, max_retries=0, timeout=120,
        **{"extra_body": NO_THINKING, **options},
    )  # fmt: skip


@pytest.mark.parametrize(("method", "strict"), [("json_schema", None), ("json_schema", True), ("json_mode", None)])
def test_structured_output(url, method, strict):
    assert model(url).with_structured_output(Person, method=method, strict=strict).invoke(SENTENCE) == ZOE


def test_structured_output_by_a_call(url):
    """The small model was not trained to call a tool for this, so only the form is certain."""
    found = model(url, max_tokens=200).with_structured_output(Person, method="function_calling").invoke(SENTENCE)
    assert isinstance(found, Person)


def test_tools(url):
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def get_weather(city: str) -> str:
        """Get the weather of a city"""
        return REPORT

    chat = model(url).bind_tools([get_weather])
    messages = [HumanMessage(WEATHER)]
    asked = chat.invoke(messages)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    answer = chat.invoke([*messages, asked, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])])
    assert answer.content == ANSWER


def test_streams_add_up(url):
    whole = None
    for chunk in model(url, stream_usage=True).stream(WHO):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == IDENTITY and whole.usage_metadata["output_tokens"] > 0


def test_responses(url):
    answer = model(url, use_responses_api=True, extra_body=None, reasoning={"effort": "none"}).invoke(WHO)
    assert answer.text == IDENTITY
