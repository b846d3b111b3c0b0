"""Chat templates of real models render as recorded."""

from __future__ import annotations

import json

import pytest

from engine.errors import RequestError
from engine.render.chat import ChatRenderer, Conversation
from engine.render.params import Limits
from engine.render.prompt import PromptEncoder
from engine.render.template import ChatTemplate, TemplateSet
from tests.data import shared

TEMPLATES = (
    "Qwen-Qwen2.5-7B-Instruct.jinja", "microsoft-Phi-3.5-mini-instruct.jinja", "mistralai-Mistral-Nemo-Instruct-2407.jinja",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "template_chatml.jinja",
)  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_recorded(name):
    folder = shared("chat_templates")
    given = json.loads((folder / "cases.json").read_text())
    cases = {case["name"]: case for case in given["cases"]}
    expected = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    template = ChatTemplate((folder / name).read_text(), variables=given["variables"])
    renderer = ChatRenderer(PromptEncoder(None, Limits(logits_size=10, max_model_len=10)), TemplateSet(template))
    seen = 0
    for row in (row for row in expected if row["template"] == name):
        case = cases[row["case"]]
        continues = case.get("continue_final_message", False)
        conversation = Conversation(
            messages=case["messages"],
            tools=case.get("tools"),
            add_generation_prompt=case.get("add_generation_prompt", not continues and "add_generation_prompt" not in case),
            continue_final_message=continues,
        )
        if row.get("error") == "TypeError":
            # Servers flatten text parts before a template that wants plain text.
            assert row["case"] == "parts" and "first\nsecond" in renderer.text(conversation)
        elif "error" in row:
            with pytest.raises(RequestError, match="refuses these messages"):
                renderer.text(conversation)
        else:
            assert renderer.text(conversation) == row["text"], row["case"]
        seen += 1
    assert seen == 18
