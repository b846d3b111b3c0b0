"""--response-role, streamed and whole."""

from __future__ import annotations

import json

import pytest

from tests.core.server.parsed import speaking
from tests.core.server.serving import in_memory, make_config

BODY = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "he"}]}


ROLES = [("bot", False, "bot"), ("bot", True, "assistant"), ("assistant", False, "assistant")]


@pytest.mark.parametrize(("flag", "continued", "role"), ROLES)
async def test_the_role_of_an_answer(flag, continued, role):
    """A message that goes on keeps the role it has."""
    body = {**BODY, "continue_final_message": continued, "add_generation_prompt": not continued}
    async with in_memory(speaking("llo"), config=make_config(response_role=flag)) as http:
        whole = (await http.post("/v1/chat/completions", json=body)).json()
        streamed = (await http.post("/v1/chat/completions", json={**body, "stream": True})).text
    chunks = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks]
    assert whole["choices"][0]["message"]["role"] == role and roles[0] == role and set(roles[1:]) <= {None}
    assert whole["choices"][0]["message"]["content"] == "llo"
