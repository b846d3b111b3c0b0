"""pydantic-ai: agents with tools and typed output, over chat and over responses."""

from __future__ import annotations

import pytest

from tests.clients.asked import ANSWER, NO_THINKING, REPORT, SENTENCE, WEATHER, ZOE, Person

pytest.importorskip("pydantic_ai", reason="the pydantic-ai package is not installed")


def agent(url, kind="OpenAIChatModel", **options):
    from pydantic_ai import Agent
    from pydantic_ai.models import openai
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    settings = {"temperature": 0.0, "max_tokens": 200, "extra_body": NO_THINKING}
    return Agent(getattr(openai, kind)("demo", provider=provider), model_settings=settings, **options)


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
async def test_an_agent_calls_its_tool(url, kind):
    weather, asked = agent(url, kind), []

    @weather.tool_plain
    def get_weather(city: str) -> str:
        """Get the weather of a city"""
        asked.append(city)
        return REPORT

    result = await weather.run(WEATHER)
    assert asked == ["Paris"] and result.output.strip() == ANSWER


async def test_typed_output_by_schema(url):
    from pydantic_ai import NativeOutput

    assert (await agent(url, output_type=NativeOutput(Person)).run(SENTENCE)).output == ZOE


async def test_typed_output_by_a_required_call(url):
    """The small model was not trained to call a tool for this, so only the form is certain."""
    assert isinstance((await agent(url, output_type=Person).run(SENTENCE)).output, Person)


async def test_a_streamed_run(url):
    from pydantic_ai import NativeOutput

    async with agent(url, output_type=NativeOutput(Person)).run_stream(SENTENCE) as run:
        assert await run.get_output() == ZOE
