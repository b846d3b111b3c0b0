"""Chat templates: limits, refusals, formats."""

from __future__ import annotations

import time

import pytest

from engine.errors import ConfigError, ModelFileError, RequestError
from engine.render.chat import ChatRenderer, Conversation
from engine.render.content import inspect_template
from engine.render.params import Limits
from engine.render.prompt import PromptEncoder
from engine.render.sandbox import BoundedEnvironment
from engine.render.template import ChatTemplate, TemplateSet, load_templates, read_flag

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "output": "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
}
LARGE = {
    "product": "{{ 'x' * 10**9 }}",
    "list": "{{ ([0] * 10**9)|length }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "doubling": "{% set s = namespace(t='x' * 1000) %}{% for i in range(60) %}{% set s.t = s.t ~ s.t %}{% endfor %}",
    "adding": "{% set s = namespace(t='x' * 1000) %}{% for i in range(60) %}{% set s.t = s.t + s.t %}{% endfor %}",
    "method": "{{ 'x'.ljust(10**9) }}",
    "center": "{{ 'x'|center(10**9) }}",
    "indent": "{{ 'x\ny'|indent(10**9) }}",
    "format": "{{ '%1000000000d'|format(1) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "star": "{{ '%*d' % (1000000000, 1) }}",
    "str.format": "{{ '{:1000000000d}'.format(1) }}",
    "str.format, nested": "{{ '{:{}}'.format(1, '1000000000d') }}",
    "replace": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "replace filter": "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
    "join": "{{ range(100000)|list|join('y' * 100000) }}",
    "str.join": "{{ ('y' * 100000).join(range(100000)|map('string')|list) }}",
    "shared": "{% set a = ['x' * 1000000] * 1000 %}{{ a|join }}",
    "nested": (
        "{% set s = namespace(a=['x' * 1000]) %}{% for i in range(20) %}{% set s.a = [s.a, s.a, s.a, s.a] %}{{ s.a|tojson }}{% endfor %}"
    ),
    "laughs": (
        "{% set a = ['x' * 10000] %}{% set b = [a,a,a,a,a,a,a,a] %}{% set c = [b,b,b,b,b,b,b,b] %}{% set d = [c,c,c,c,c,c,c,c] %}"
        "{% set e = [d,d,d,d,d,d,d,d] %}{{ e }}"
    ),
    "block": "{% set s %}{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_template_is_stopped(name):
    template = ChatTemplate(ENDLESS[name], seconds=0.2)
    start = time.monotonic()
    with pytest.raises(RequestError):
        template.render({})
    assert time.monotonic() - start < 3.0


@pytest.mark.parametrize("name", LARGE)
def test_a_template_cannot_make_large_things(name):
    template = ChatTemplate(LARGE[name], seconds=5.0)
    start = time.monotonic()
    with pytest.raises(RequestError):
        template.render({})
    assert time.monotonic() - start < 3.0


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ tick.__self__ }}{{ self._TemplateReference__context.environment.filters }}",
        "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    ],
)
def test_the_sandbox_gives_nothing_away(source):
    try:
        text = ChatTemplate(source).render({"messages": []})
    except RequestError:
        return
    assert text == ""


def test_what_templates_use():
    source = (
        "{% generation %}a{% endgeneration %}{% for x in items %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}/{{ loop.length }}"
        "{{ ',' if not loop.last }}{% if x == 3 %}{% break %}{% endif %}{% endfor %}{{ data|tojson }}{{ strftime_now('%Y')|length }}"
        "{{ data|tojson(indent=2) }}{{ data.k.keys()|list }}{{ 'x'.upper() ~ 1 ~ none }}{{ 'abc'[::-1] }}"
    )
    text = ChatTemplate(source).render({"items": [1, 2, 3, 4], "data": {"k": {"é": "<b>"}}})
    assert text == 'a1/4,3/4,{"k": {"é": "<b>"}}4{\n  "k": {\n    "é": "<b>"\n  }\n}[\'é\']X1Nonecba'


def test_recursive_loops_and_filters_of_loops():
    source = (
        "{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}|"
        "{% for a in x|reverse %}{{ a }}{% endfor %}"
    )
    tree = [{"v": 1, "c": [{"v": 2, "c": []}]}, {"v": 3, "c": []}]
    assert ChatTemplate(source).render({"tree": tree, "x": [1, 2]}) == "1(2)3|21"


def test_a_broken_template_is_a_model_error():
    with pytest.raises(ModelFileError, match="cannot be compiled"):
        ChatTemplate("{% if %}")
    with pytest.raises(ModelFileError):
        ChatTemplate("{{ " + "(" * 6000 + "1" + ")" * 6000 + " }}")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% set c = m['content'] %}{% for p in c %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for line in m.content.split('x') %}{% endfor %}{% endfor %}", False),
    ],
)
def test_content_format_is_read_from_the_template(source, parts):
    assert inspect_template(source, BoundedEnvironment()).parts is parts


def test_chat_template_flag(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{{ 'file' }}")
    assert read_flag(str(file)) == "{{ 'file' }}"
    assert read_flag("{{ messages }}") == "{{ messages }}"
    with pytest.raises(ConfigError, match="no file"):
        read_flag("missing.jinja")


def test_template_choice():
    templates = load_templates(None, {"default": "D", "tool_use": "T"}, {})
    assert templates.choose(False).render({}) == "D" and templates.choose(True).render({}) == "T"
    assert load_templates("{{ 'F' }}", {"default": "D"}, {}).choose(True).render({}) == "F"
    assert load_templates(None, None, {}) is None


def renderer(source: str, **options) -> ChatRenderer:
    return ChatRenderer(PromptEncoder(None, Limits(logits_size=9, max_model_len=9)), TemplateSet(ChatTemplate(source)), **options)


def test_arguments_reach_templates_the_way_they_use_them():
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    conversation = Conversation(messages=messages)
    as_object = "{% for c in messages[0].tool_calls %}{{ c.function.arguments.a + 1 }}{% endfor %}"
    as_text = "{% for c in messages[0].tool_calls %}{{ '>' + c['function']['arguments'] }}{% endfor %}"
    assert renderer(as_object).text(conversation) == "2"
    assert renderer(as_text).text(conversation) == '>{"a": 1}'


def test_developer_is_system_for_templates_that_do_not_know_it():
    conversation = Conversation(messages=[{"role": "developer", "content": "x"}])
    assert renderer("{{ messages[0].role }}").text(conversation) == "system"
    assert renderer("{# developer #}{{ messages[0].role }}").text(conversation) == "developer"


def test_parts_for_templates_that_walk_over_them():
    source = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
    conversation = Conversation(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}])
    assert renderer(source).text(conversation) == "[a][b]"
    assert renderer("{{ messages[0].content[0].text }}", content_format="openai").text(conversation) == "a"


def test_kwargs_reach_the_template_and_reserved_ones_do_not():
    source = "{{ enable_thinking }}{{ messages|length }}"
    message = [{"role": "user", "content": "a"}]
    assert renderer(source).text(Conversation(messages=message, options={"enable_thinking": False})) == "False1"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "chat_template", "tokenize", "__class__"])
async def test_reserved_kwargs_are_refused(name):
    with pytest.raises(RequestError) as caught:
        await renderer("x").encode(Conversation(messages=[{"role": "user", "content": "a"}], options={name: 1}))
    assert caught.value.param == "chat_template_kwargs"
