"""Chat templates of requests: taken where the operator says so, bounded in size, depth, time and output; refused by the field's name."""

from __future__ import annotations

import time

import pytest

from engine.errors import RequestError
from engine.render.chat import ChatRenderer, Conversation
from engine.render.params import Limits
from engine.render.prompt import PromptEncoder
from engine.render.requested import KEPT, MAX_CHARACTERS, SECONDS, RequestTemplates
from tests.core.render.test_template import ENDLESS, LARGE
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import in_memory, make_config

BAD = {
    "empty": "",
    "too long": "x" * (MAX_CHARACTERS + 1),
    "parentheses": "{{" + "(" * 6000 + ")" * 6000 + "}}",
    "lists": "{{ " + "[" * 100 + "]" * 100 + " }}",
    "blocks": "{% if 1 %}" * 1600 + "{% endif %}" * 1600,
    "negations": "{{ " + "not " * 8_000 + "1 }}",
    "attributes": "{{ a" + ".b" * 15_000 + " }}",
    "powers": "{{ 2" + "**2" * 10_000 + " }}",
    "unfinished": "{% for x in messages %}",
    "no syntax": "{{ % }}",
    "open text": "{{ 'a }}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
}
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "append": "{{ messages.append(1) }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
}


def conversation(template: str | None) -> Conversation:
    return Conversation(messages=[{"role": "user", "content": "Hi"}], template=template)


def renderer(trusted: bool = True) -> ChatRenderer:
    encoder = PromptEncoder(byte_tokenizer(), Limits.of(make_config()))
    return ChatRenderer(encoder, None, requested=RequestTemplates({"bos_token": "<s>"}) if trusted else None)


def test_a_request_brings_its_template():
    mine = renderer()
    source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{{ '>' if add_generation_prompt }}"
    assert mine.text(conversation(source)) == "<s>[user] Hi>"
    with pytest.raises(RequestError) as refused:
        renderer(trusted=False).text(conversation(source))
    assert refused.value.param == "chat_template" and "--trust-request-chat-template" in refused.value.line()


@pytest.mark.parametrize("name", [*BAD, *ENDLESS, *LARGE, *ESCAPES])
def test_hostile_templates_are_refused_in_time(name):
    source = (BAD | ENDLESS | LARGE | ESCAPES)[name]
    began = time.monotonic()
    try:
        shown = renderer().text(conversation(source))
    except RequestError as refused:
        assert refused.param == "chat_template" and refused.http_status == 400
        assert len(str(refused)) < 1000
    else:
        assert name in ESCAPES and "class" not in shown
    assert time.monotonic() - began < SECONDS + 1.0


def test_compiled_templates_are_few():
    templates = RequestTemplates({})
    first = templates.get("0")
    assert templates.get("0") is first
    for number in range(KEPT + 5):
        templates.get(f"{number}")
    assert len(templates._known) == KEPT and templates.get("0") is not first


async def test_over_http():
    body = {"messages": [{"role": "user", "content": "Hi"}], "chat_template": "{{ messages[0].content }}!", "max_tokens": 3}
    async with in_memory(config=make_config(request_templates=True)) as http:
        tokenized = await http.post("/tokenize", json={"messages": body["messages"], "chat_template": body["chat_template"]})
        assert tokenized.status_code == 200 and tokenized.json()["count"] == 3
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200 and answer.json()["usage"]["prompt_tokens"] == 3
        answer = await http.post("/v1/chat/completions", json=body | {"chat_template": "{{ 'x' * 10**9 }}"})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "chat_template"
    async with in_memory() as http:
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "chat_template"
