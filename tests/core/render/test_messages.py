"""Messages of a request as templates get them."""

from __future__ import annotations

import pytest

from engine.errors import RequestError
from engine.render.content import TemplateHabits
from engine.render.messages import shape_messages

QUESTION = {"role": "user", "content": "hi"}
#: Messages of an assistant without content, as client libraries send them back, and the content that the template gets.
BACK = {
    "cut short while it thought": ({"content": None, "refusal": None, "reasoning": "17 +", "reasoning_content": "17 +"}, ""),
    "without the key": ({"reasoning_content": "17 +"}, ""),
    "a refusal": ({"content": None, "refusal": "I cannot."}, "I cannot."),
    "text beside a refusal": ({"content": "No.", "refusal": "I cannot."}, "No."),
}


@pytest.mark.parametrize("name", BACK)
def test_an_answer_without_content_comes_back(name):
    message, content = BACK[name]
    shaped = shape_messages([QUESTION, {"role": "assistant", **message}, QUESTION], TemplateHabits())
    assert shaped[1]["content"] == content


@pytest.mark.parametrize(
    "message", [{"role": "assistant", "content": None, "refusal": None}, {"role": "user", "content": None, "refusal": "I cannot."}]
)
def test_null_content_is_refused_elsewhere(message):
    with pytest.raises(RequestError, match=r"messages\[1\].content cannot be null"):
        shape_messages([QUESTION, message], TemplateHabits())
