"""Tool parsers on tables of real and hostile outputs, in any split; time on a million characters."""

from __future__ import annotations

import pytest

from engine.plugin import Delta
from engine.plugin.host import PluginHost
from engine.plugin.kinds import TOOL_PARSER
from tests.plugins_parsers.kit import check_splits, gather, message, tool_maker
from tests.plugins_parsers.test_tool_formats import TOOLS
from tests.plugins_parsers.tool_formats import FORMATS
from tests.plugins_parsers.tool_tables import tables

ROWS = [pytest.param(module, *row, id=f"{module}-{place}") for module, rows in tables().items() for place, row in enumerate(rows)]


@pytest.mark.parametrize(("module", "text", "content", "calls"), ROWS)
def test_outputs(module, text, content, calls):
    assert check_splits(tool_maker(module, TOOLS), text, singles=200) == message(content, *calls)


def test_every_parser_has_a_table():
    modules = {row[0] for row in FORMATS}
    entries = PluginHost().entries(TOOL_PARSER)
    installed = {entry.module.rpartition(".")[2] for entry in entries if entry.module.startswith("engine_parsers")}
    assert installed - {"auto"} == modules == set(tables())
    assert all(len(rows) >= 20 for rows in tables().values())


def test_ids():
    """Mistral's templates take nine letters and digits; Kimi's must come back as the model wrote them; others are the server's."""

    def ids(module: str, text: str) -> list[str]:
        state = tool_maker(module, TOOLS)()
        deltas: list[Delta] = [state.feed(text, ()), state.finish()]
        gather(deltas)
        return [call.id for delta in deltas for call in delta.tool_calls if call.id]

    (mistral,) = ids("mistral", "[TOOL_CALLS]now{}")
    assert len(mistral) == 9 and mistral.isalnum()
    assert ids("mistral", "[TOOL_CALLS]now[CALL_ID]abcDEF123[ARGS]{}") == ["abcDEF123"]
    text = "<|tool_call_begin|>functions.now:3<|tool_call_argument_begin|>{}<|tool_call_end|>"
    assert ids("kimi_k2", text) == ["functions.now:3"]
    (own,) = ids("hermes", '<tool_call>{"name": "now"}</tool_call>')
    assert own.startswith("chatcmpl-tool-")


LONG = 1_000_000


def shapes(write):
    """A million characters each, made to make parsers hold text back or begin again and again."""
    call = write([("now", {})])
    opened = write([("f", {"a": "x" * 40})]).split("xxxx")[0]
    yield "one long argument", write([("f", {"a": "lorem (ipsum] {dolor" * (LONG // 20)})])
    yield "many calls", write([("get_weather", {"city": "Paris"})] * (LONG // 60))
    yield "openings", opened * (LONG // len(opened))
    yield "beginnings", (call[: len(call) // 3] + " ") * (LONG // (len(call) // 3 + 1))
    yield "open brackets in an argument", opened + "[{(" * (LONG // 3)
    yield "white space", opened + " \n" * (LONG // 2)
    yield "first characters", call[0] * LONG
    yield "after a call", call + "word " * (LONG // 5)


@pytest.mark.parametrize(("module", "write"), [pytest.param(*row[:2], id=row[1].__name__) for row in FORMATS])
def test_a_million_characters_take_linear_time(module, write, linear):
    for _, text in shapes(write):
        linear(tool_maker(module, TOOLS), text)
