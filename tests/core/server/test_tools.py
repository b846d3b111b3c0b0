"""tool_choice and budgets on servers without the parsers that they need."""

from __future__ import annotations

import pytest

from tests.core.server.serving import in_memory

TOOLS = [{"type": "function", "function": {"name": "f"}}]
MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(("param", "fields"), [
    ("tool_choice", {"tools": TOOLS, "tool_choice": "auto"}),
    ("tool_choice", {"tools": TOOLS, "tool_choice": "required"}),
    ("tool_choice", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ("tool_choice", {"tools": TOOLS, "tool_choice": "any"}), ("tool_choice", {"tools": TOOLS, "tool_choice": {"type": "function"}}),
    ("thinking_budget", {"thinking_budget": 5}), ("reasoning_effort", {"reasoning_effort": "x"}),
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_refused(param, fields, stream):
    async with in_memory() as http:
        answer = await http.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 2, "stream": stream, **fields})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text
        assert not http.engine.seen


@pytest.mark.parametrize("fields", [{"tools": TOOLS, "tool_choice": "none"}, {"tools": []}, {"tools": TOOLS}, {"reasoning_effort": "low"},
                                    {"chat_template_kwargs": {"thinking_budget": 5}}])  # fmt: skip
async def test_accepted(fields):
    async with in_memory() as http:
        answer = await http.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 2, **fields})
        assert answer.status_code == 200, answer.text
        assert "reasoning" not in answer.json()["choices"][0]["message"]
