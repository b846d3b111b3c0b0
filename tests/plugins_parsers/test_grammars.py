"""The constraints that enforce calls accept what the format writes, and nothing else; templates show their parser."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest

from engine.plugin import GuideSpec
from engine_parsers._recognise import choose
from engine_parsers.reasoning import auto as reasoning_auto
from engine_parsers.tools import auto
from engine_plugins.guided_decoding.xgrammar import engine_create_guide
from tests.data import shared
from tests.plugins_parsers.kit import run, tool, tool_maker
from tests.plugins_parsers.letters import Letters
from tests.plugins_parsers.tool_formats import FORMATS, gpt_oss

TOOLS = [tool("get_weather", city={"type": "string"}, unit={"type": "string"}), tool("now")]
CALLS = [("get_weather", {"city": "Paris", "unit": "c"}), ("now", {})]
#: Read, but written otherwise when calls are enforced; or not enforceable.
OTHERWISE = ("llama3_json", "mistral_2025", "xlam_marked")
SINGLE = ("gpt_oss",)
PYTHON = ("pythonic", "llama4_pythonic", "olmo3")
ENFORCED = [
    pytest.param(module, write, id=f"{module}-{write.__name__}")
    for module, write, _, _ in FORMATS
    if write.__name__ not in (*OTHERWISE, *SINGLE, *PYTHON) and not (module == "deepseek_v3" and write.__name__ == "deepseek_v31")
]


def parser(module: str):
    return import_module(f"engine_parsers.tools.{module}").engine_create_tool_parser()


def accepts(spec, text: str) -> bool:
    xgrammar = pytest.importorskip("xgrammar")
    tokens = [bytes([value]) for value in range(256)] + [b"<eos>"]
    info = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, vocab_size=257, stop_token_ids=[256])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    compiled = compiler.compile_grammar(spec.value) if spec.kind == "grammar" else compiler.compile_structural_tag(json.dumps(spec.value))
    matcher = xgrammar.GrammarMatcher(compiled)
    return all(matcher.accept_token(token) for token in (*text.encode(), 256))


@pytest.mark.parametrize(("module", "write"), ENFORCED)
def test_the_grammar_is_the_format_s(module, write):
    spec = parser(module).grammar(TOOLS)
    assert accepts(spec, write(CALLS).rstrip()) and accepts(spec, write(CALLS[:1]).rstrip())
    assert not accepts(spec, "") and not accepts(spec, "words") and not accepts(spec, write([("other", {})]).rstrip())
    one = parser(module).grammar(TOOLS, parallel=False)
    assert accepts(one, write(CALLS[1:]).rstrip()) and not accepts(one, write(CALLS).rstrip())


def test_llama_s_calls_are_bare_objects():
    spec = parser("llama3_json").grammar(TOOLS)
    assert accepts(spec, '{"name": "get_weather", "parameters": {"city": "Paris", "unit": "c"}}')


SHAPED = {
    "type": "object", "required": ["a", "b"],
    "properties": {
        "a": {"enum": ["x", 'y"', 1, None]}, "b": {"type": "integer"}, "c": {"type": ["string", "null"]}, "d": {"type": "array"},
    },
}  # fmt: skip


@pytest.mark.parametrize("module", PYTHON)
def test_python_calls(module):
    around = ("<function_calls>\n", "\n</function_calls>", "\n") if module == "olmo3" else ("[", "]", ", ")
    tools = [{"type": "function", "function": {"name": "f", "parameters": SHAPED}}, tool("now"), tool("get", city={"type": "string"})]
    calls = {
        'f(a="x", b=3)': {"a": "x", "b": 3}, 'f(a="y\\"", b=-3, c="é\\n")': {"a": 'y"', "b": -3, "c": "é\n"},
        "f(a=None, b=0, d=[1, {\"k\": True}])": {"a": None, "b": 0, "d": [1, {"k": True}]}, "f(a=1, b=2, c=None, d=[])":
        {"a": 1, "b": 2, "c": None, "d": []}, "now()": {}, 'get(city="Paris")': {"city": "Paris"}, "get()": {},
    }  # fmt: skip
    spec, single = parser(module).grammar(tools), parser(module).grammar(tools, parallel=False)
    for call, arguments in calls.items():
        text = around[0] + call + around[1]
        assert accepts(spec, text) and accepts(single, text), call
        ((_, written),) = run(tool_maker(module, tools), [text]).calls
        assert json.loads(written) == arguments
    both = around[0] + around[2].join(["now()", 'f(a="x", b=3)']) + around[1]
    assert accepts(spec, both) and not accepts(single, both)
    for wrong in ("f()", 'f(a="z", b=3)', 'f(b=3, a="x")', 'f(a="x", b=3.5)', "other()", "f(a='x', b=3)", 'f(a="x", b=3,)', "now(x=1)"):
        assert not accepts(spec, around[0] + wrong + around[1]), wrong
    assert parser(module).grammar([tool("f", **{"no-name": {}})]) is None


ANALYSIS = "<|channel|>analysis<|message|>They ask for the\nweather.<|end|><|start|>assistant"


def test_channels_hold_one_call_after_an_analysis_or_none():
    spec = parser("gpt_oss").grammar(TOOLS)
    for call in CALLS:
        assert accepts(spec, gpt_oss([call])) and accepts(spec, ANALYSIS + gpt_oss([call]))
    for wrong in (gpt_oss(CALLS), gpt_oss([("other", {})]), "<|channel|>final<|message|>Hello<|return|>", ANALYSIS, "words", ""):
        assert not accepts(spec, wrong)


SPECIAL = [*ENFORCED, pytest.param("gpt_oss", gpt_oss, id="gpt_oss")]
#: Markers that the format writes inside the arguments, which a schema describes: there they are spelled.
INSIDE = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


@pytest.mark.parametrize(("module", "write"), SPECIAL)
def test_markers_that_are_special_tokens_come_as_such(module, write):
    """Where the vocabulary has a format's markers as special tokens, the grammar asks for these and refuses their letters."""
    pytest.importorskip("xgrammar")
    source = parser(module)
    markers = [marker for marker in source.markers() if marker not in INSIDE]
    tokenizer = Letters(markers)
    spec = source.grammar(TOOLS, parallel=False)
    guide = engine_create_guide(tokenizer=tokenizer, vocab_size=tokenizer.size()).compile(spec)
    text = write(CALLS[:1]).rstrip()
    ids, letters = tokenizer.encode(text), tokenizer.encode(text, allow_special=False)
    written = ids != letters
    assert written == (bool(markers) and module not in ("xlam", "phi4_mini_json"))  # whose markers models may leave away
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert follows(guide, ids, tokenizer.size())
    assert follows(guide, letters, tokenizer.size()) == (not written)
    assert spec.options.get("markers", []) == list(source.markers())


def follows(guide, ids, size) -> bool:
    """Whether the masks allow the tokens one by one and the end after them; going back and forth on the way changes nothing."""
    matcher = guide.start()
    mask = np.zeros(-(-size // 32), np.int32)
    for place, token in enumerate([*ids, Letters.END]):
        mask.fill(0)
        matcher.fill(mask)
        if not int(mask.view(np.uint32)[token >> 5]) >> (token & 31) & 1:
            return False
        if token != Letters.END:
            assert matcher.advance([token])
        if place % 3 == 2 and token != Letters.END:
            matcher.rollback(2)
            assert matcher.advance(ids[place - 1 : place + 1])
    return True


OFFERED = [case for case in ENFORCED if case.values[0] != "xlam"]
TEXT = "Words, {\"name\": 1} [and] <tags>\nwith é\n\n"


@pytest.mark.parametrize(("module", "write"), OFFERED)
def test_free_text_with_calls_that_are_held_to_their_schemas(module, write):
    """Both where the markers are spelled and where they are special tokens."""
    pytest.importorskip("xgrammar")
    source = parser(module)
    spec, one = source.offer(TOOLS), source.offer(TOOLS, parallel=False)
    kept = [marker for marker in source.markers() if marker not in INSIDE]
    first, both, wrong = (write(calls).rstrip() for calls in (CALLS[:1], CALLS, [("other", {})]))
    for tokenizer in (Letters(()), Letters(kept)):
        size = tokenizer.size()
        compiler = engine_create_guide(tokenizer=tokenizer, vocab_size=size)
        guide, single = compiler.compile(spec), compiler.compile(one)
        for text in ("", TEXT, first, both, TEXT + both, TEXT + first + TEXT + first + TEXT):
            assert follows(guide, tokenizer.encode(text), size), text
        assert follows(single, tokenizer.encode(TEXT + first), size)
        assert not follows(single, tokenizer.encode(TEXT + first + TEXT), size)
        for call in (wrong, write([("get_weather", {"city": 5})]).rstrip() if '"city":' in first else wrong):
            assert not follows(guide, tokenizer.encode(TEXT + call), size)


@pytest.mark.parametrize(("module", "write"), OFFERED)
def test_free_text_may_be_anything_but_a_call(module, write):
    """Every token may come at any place of a text: bytes of characters, special tokens, the end."""
    pytest.importorskip("xgrammar")
    source = parser(module)
    for tokenizer in (Letters((*source.markers(), "<|other|>")), Letters(("<|other|>",))):
        size = tokenizer.size()
        spec = source.offer(TOOLS)
        matcher = engine_create_guide(tokenizer=tokenizer, vocab_size=size).compile(spec).start()
        for token in [None, *tokenizer.encode("A <|other|> b\n{[(\u20ac functools <tool")]:
            assert token is None or matcher.advance([token])
            mask = np.zeros(-(-size // 32), np.int32)
            matcher.fill(mask)
            allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[:size]
            forbidden = [tokenizer.token_text(i) for i in np.flatnonzero(allowed == 0)]
            assert set(forbidden) <= set(source.markers()), forbidden




def json_calls(key: str, separator: str) -> str:
    calls = separator.join(json.dumps({"name": name, key: arguments}) for name, arguments in CALLS)
    return f"[{calls}]" if key == "arguments" else calls


#: Formats whose calls begin without a marker: what models write around a call, the calls of CALLS, one that no schema allows.
BARE = {
    "llama3_json": (("", "<|python_tag|>"), json_calls("parameters", "; "), '{"name": "get_weather", "parameters": {"city": 5}}'),
    "xlam": (("", "```json\n", "[TOOL_CALLS]"), json_calls("arguments", ", "), '[{"name": "get_weather", "arguments": {"city": 5}}]'),
    "pythonic": (("",), '[get_weather(city="Paris", unit="c"), now()]', "[get_weather(city=5)]"),
    "llama4_pythonic": (("", "<|python_start|>"), '[get_weather(city="Paris", unit="c"), now()]', "[get_weather(city=5)]"),
    "olmo3": (("",), '<function_calls>\nget_weather(city="Paris", unit="c")\nnow()\n</function_calls>', "<function_calls>\nnow(1)"),
}  # fmt: skip


@pytest.mark.parametrize("module", BARE)
def test_calls_without_a_marker_are_held_to_their_schemas(module):
    """They are known by the names of the tools; other objects and lists are text."""
    pytest.importorskip("xgrammar")
    source = parser(module)
    befores, calls, wrong = BARE[module]
    spec, one = source.offer(TOOLS), source.offer(TOOLS, parallel=False)
    for tokenizer in (Letters(()), Letters((*source.markers(), "<|other|>"))):
        size = tokenizer.size()
        guide, single = (engine_create_guide(tokenizer=tokenizer, vocab_size=size).compile(each) for each in (spec, one))
        for text in ("", TEXT, '{"name": "Ann", "age": 7}', "[1, 2](now)", *(before + calls for before in befores)):
            assert follows(guide, tokenizer.encode(text), size), text
            if text.endswith(calls):
                read = run(tool_maker(module, TOOLS), [text]).calls
                assert [(name, json.loads(arguments)) for name, arguments in read] == CALLS
        for before in befores:
            assert not follows(guide, tokenizer.encode(before + wrong), size)
            assert not follows(single, tokenizer.encode(before + calls), size)


COMPACT = ('{"name":"get_weather","parameters":@}', '{"type": "function", "name": "get_weather", "parameters": @}')


@pytest.mark.parametrize("compact", COMPACT)
def test_the_ways_in_which_llama_begins_a_call(compact):
    pytest.importorskip("xgrammar")
    tokenizer = Letters(())
    guide = engine_create_guide(tokenizer=tokenizer, vocab_size=257).compile(parser("llama3_json").offer(TOOLS))
    assert follows(guide, tokenizer.encode(compact.replace("@", '{"city": "Rome", "unit": "c"}')), 257)
    assert not follows(guide, tokenizer.encode(compact.replace("@", '{"town": "Rome"}')), 257)


HEADERS = (
    "<|channel|>commentary to=functions.@ <|constrain|>json", "<|channel|>commentary to=functions.@",
    " to=functions.@<|channel|>commentary <|constrain|>json",
)  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_recipient_begins_a_strict_call(header):
    pytest.importorskip("xgrammar")
    source = parser("gpt_oss")
    for tokenizer in (Letters(()), Letters(source.markers())):
        size = tokenizer.size()
        spec = source.offer(TOOLS)
        assert spec.options["thinks"]
        guide = engine_create_guide(tokenizer=tokenizer, vocab_size=size).compile(spec)
        call = header.replace("@", "get_weather") + '<|message|>{"city": "Paris", "unit": "c"}<|call|>'
        for text in ("<|channel|>final<|message|>Hello.", call, ANALYSIS + call, ANALYSIS + "<|channel|>final<|message|>No."):
            assert follows(guide, tokenizer.encode(text), size), text
        for wrong in (call.replace("get_weather", "other"), call.replace('"Paris"', "5")):
            assert not follows(guide, tokenizer.encode(ANALYSIS + wrong), size), wrong


def test_markers_in_strings_and_in_free_text_stay_letters():
    """A value that quotes a marker does not become markup, and a request's own structural tags know no special tokens."""
    pytest.importorskip("xgrammar")
    tokenizer = Letters(("<|channel|>", "<|message|>", "<|call|>", "<|constrain|>", "<|start|>", "<|end|>"))
    compiler = engine_create_guide(tokenizer=tokenizer, vocab_size=tokenizer.size())
    guide = compiler.compile(parser("gpt_oss").grammar(TOOLS))
    head, tail = (tokenizer.encode(part) for part in gpt_oss([("get_weather", {"city": "@", "unit": "c"})]).split("@"))
    assert follows(guide, [*head, *b"<|call|>", *tail], tokenizer.size())
    assert not follows(guide, [*head, *tokenizer.encode("<|call|>"), *tail], tokenizer.size())
    tag = {"structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}], "triggers": ["<f"]}
    free = compiler.compile(GuideSpec("structural_tag", tag))
    assert follows(free, list(b"words <|call|> <f>1</f>"), tokenizer.size())
    assert not follows(free, tokenizer.encode("words <|call|> <f>1</f>"), tokenizer.size())


TEMPLATES = {
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None), "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek_v3", "deepseek_r1"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None), "microsoft-Phi-3.5-mini-instruct": (None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_real_templates_show_their_parsers(name):
    source = shared(f"chat_templates/{name}.jinja").read_text()
    for rows, wanted in zip((auto.ROWS, reasoning_auto.ROWS), TEMPLATES[name], strict=True):
        found = choose(rows, source, frozenset())
        assert (found.name if found else None) == wanted
        assert found is None or "in the chat template" in found.reason


def test_the_vocabulary_shows_what_the_template_does_not():
    found = choose(auto.ROWS, "", frozenset(("[TOOL_CALLS]", "[INST]")))
    assert found is not None and found.name == "mistral" and "in the vocabulary" in found.reason
