"""Outputs that models really write, and hostile ones, by parser: text, content, calls."""

from __future__ import annotations

import json
from pathlib import Path

Call = tuple[str, str]
Row = tuple[str, str, tuple[Call, ...]]
C1 = ("get_weather", '{"city": "Paris"}')
NOW = ("now", "{}")

HERMES: tuple[Row, ...] = (
    ('<tool_call>{"name":"now"}</tool_call>', "", (NOW,)),
    ('<tool_call>{"name":"now","arguments":{}}</tool_call>', "", (NOW,)),
    ('<tool_call>{"name":"now","arguments":null}</tool_call>', "", (NOW,)),
    ('<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>', "", (C1,)),
    ('<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}</tool_call>', "", (C1,)),
    ('<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', "", (C1,)),
    ('<tool_call>{"id": "x", "type": "function", "name": "now", "arguments": {}}</tool_call>', "", (NOW,)),
    ('<tool_call>[{"name":"now"}, {"name":"now"}]</tool_call>', "", (NOW, NOW)),
    ('<tool_call>{"name":"now"}\n{"name":"now"}</tool_call>', "", (NOW, NOW)),
    ('<tool_call>{"name":"now"}</tool_call> and <tool_call>{"name":"now"}</tool_call>', " and", (NOW, NOW)),
    ('<tool_call>{"name":"now"}</tool_call>\nDone.\n', "\nDone.\n", (NOW,)),
    ('<tool_call>\n\n{ "name" :\t"now" , "arguments" : { } }\n\n</tool_call>', "", (("now", "{ }"),)),
    ('<tool_call>{"name":"f","arguments":{"a":"</tool_call>"}}</tool_call>', "", (("f", '{"a":"</tool_call>"}'),)),
    ('<tool_call>{"name":"f","arguments":{"a":"\\ud83c\\udf26 \\u00e9"}}</tool_call>', "", (("f", '{"a":"\\ud83c\\udf26 \\u00e9"}'),)),
    ('<tool_call>{"name":"f","arguments":{"a":"line\nbreak"}}</tool_call>', "", (("f", '{"a":"line\nbreak"}'),)),
    ('<tool_call>{"name":"f","arguments":[1,2]}</tool_call>', "", (("f", "[1,2]"),)),
    ('<tool_call>{"name":"f","arguments":{"x":12345678901234567890.10e+5}}</tool_call>', "", (("f", '{"x":12345678901234567890.10e+5}'),)),
    ("<tool_call>not JSON</tool_call>", "<tool_call>not JSON</tool_call>", ()),
    ("<tool_call></tool_call>", "<tool_call></tool_call>", ()),
    ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', ()),
    ('<tool_call>{"name": ""}</tool_call>', '<tool_call>{"name": ""}</tool_call>', ()),
    ('<tool_call>{"arguments": {}}</tool_call>', '<tool_call>{"arguments": {}}</tool_call>', ()),
    ('<tool_call>{"name": "now"', "", (("now", ""),)),
    ('<tool_call>{"name": "no', '<tool_call>{"name": "no', ()),
    ('<tool_call>{"name": "f", "arguments": {"a": "Par', "", (("f", '{"a": "Par'),)),
    ("<tool_call>", "<tool_call>", ()),
    ("<tool_call", "<tool_call", ()),
    ("</tool_call>", "</tool_call>", ()),
    ("a < b and <tool> and <tool_calls>", "a < b and <tool> and <tool_calls>", ()),
    ('<tool_call>{"name":"now"}} stray</tool_call>after', "strayafter", (NOW,)),
    ('<tool_call>\n{"name":"now","arguments":{}}}\n</tool_call>\n<tool_call>\n{"name":"now"}}}\n</tool_call>', "", (NOW, NOW)),
    ('<tool_call>{"name":"f","arguments":{"a":[1}}</tool_call>', "", (("f", '{"a":[1'),)),
    ('<tool_call><tool_call>{"name":"now"}</tool_call>', "<tool_call>", (NOW,)),
    ('```json\n{"name": "now"}\n```', '```json\n{"name": "now"}\n```', ()),
)  # fmt: skip

LLAMA3: tuple[Row, ...] = (
    ('{"name": "get_weather", "parameters": {"city": "Paris"}}', "", (C1,)),
    ('{"name": "get_weather", "arguments": {"city": "Paris"}}', "", (C1,)),
    (' \n{"name": "now", "parameters": {}}', "", (NOW,)),
    ('{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Paris"}}', "", (NOW, C1)),
    ('<|python_tag|>{"name": "now", "parameters": {}}', "", (NOW,)),
    ('{"type": "function", "name": "now", "parameters": {}}', "", (NOW,)),
    ('{"name": "Bob", "parameters": {"age": 3}}', '{"name": "Bob", "parameters": {"age": 3}}', ()),
    ('{"city": "Paris"}', '{"city": "Paris"}', ()),
    ('{"name": "now"', "", (("now", ""),)),
    ('{"name": "n', '{"name": "n', ()),
    ("{", "{", ()),
    ("{}", "{}", ()),
    ("{ not JSON", "{ not JSON", ()),
    ('<|python_tag|>brave_search.call(query="x")', '<|python_tag|>brave_search.call(query="x")', ()),
    ("<|python_tag|>", "<|python_tag|>", ()),
    ('The answer: {"name": "now"}', 'The answer: {"name": "now"}', ()),
    ('{"name": "now", "parameters": {}} done', "done", (NOW,)),
    ('{"name": "now", "parameters": {}};', "", (NOW,)),
    ('{"name": "now", "parameters": {}}\n{"name": "now"}', "", (NOW, NOW)),
    ('{"parameters": {"city": "Paris"}, "name": "get_weather"}', "", (C1,)),
    ('{"name": "f", "parameters": {"a": "{;}"}}', "", (("f", '{"a": "{;}"}'),)),
    ('{"name": "f", "parameters": {"a": "\\"; {\\"name\\": \\"now\\"}"}}', "", (("f", '{"a": "\\"; {\\"name\\": \\"now\\"}"}'),)),
)  # fmt: skip

MISTRAL: tuple[Row, ...] = (
    ('[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", (C1,)),
    ('[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}]', "", (C1,)),
    ('[TOOL_CALLS][{"arguments": {"city": "Paris"}, "name": "get_weather"}]', "", (C1,)),
    ('[TOOL_CALLS]get_weather{"city": "Paris"}', "", (C1,)),
    ('[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', "", (C1,)),
    ('[TOOL_CALLS]get_weather[CALL_ID]VvvODy9mT[ARGS]{"city": "Paris"}', "", (C1,)),
    ('[TOOL_CALLS]now{}[TOOL_CALLS]get_weather{"city": "Paris"}', "", (NOW, C1)),
    ('Sure.[TOOL_CALLS]now[ARGS]{}', "Sure.", (NOW,)),
    ('[TOOL_CALLS]{"name": "now", "arguments": {}}', "", (NOW,)),
    ("[TOOL_CALLS]", "[TOOL_CALLS]", ()),
    ("[TOOL_CALLS]now", "[TOOL_CALLS]now", ()),
    ("[TOOL_CALLS]now[ARGS]", "[TOOL_CALLS]now[ARGS]", ()),
    ("[TOOL_CALLS]two words{}", "[TOOL_CALLS]two words{}", ()),
    ("[TOOL_CALLS][]", "[TOOL_CALLS][]", ()),
    ("[TOOL_CALLS][1, 2]", "[TOOL_CALLS][1, 2]", ()),
    ("[TOOL", "[TOOL", ()),
    ("[m][m][m]", "[m][m][m]", ()),
    ('[TOOL_CALLS][{"name": "f", "arguments": {"a": "[TOOL_CALLS]"}}]', "", (("f", '{"a": "[TOOL_CALLS]"}'),)),
    ('[TOOL_CALLS]f{"a": "]}"', "", (("f", '{"a": "]}"'),)),
    ('[TOOL_CALLS][{"name": "f", "arguments": {"a": 1', "", (("f", '{"a": 1'),)),
    ('[TOOL_CALLS][{"name": "now", "arguments": {}}] and more', "and more", (NOW,)),
)  # fmt: skip

DEEPSEEK: tuple[Row, ...] = (
    ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>", "", (NOW,)),
    ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "", (NOW,)),
    ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}<｜tool▁call▁end｜>", "", (("function", "{}"),)),
    ("Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}", "Hm.", (NOW,)),
    ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"<｜tool▁call▁end｜>\"}<｜tool▁call▁end｜>", "",
     (("f", '{"a": "<｜tool▁call▁end｜>"}'),)),
    ("<｜tool▁call▁begin｜>no name here<｜tool▁call▁end｜>", "<｜tool▁call▁begin｜>no name here<｜tool▁call▁end｜>", ()),
    ("<｜tool▁call▁begin｜>now<｜tool▁sep｜>", "<｜tool▁call▁begin｜>now<｜tool▁sep｜>", ()),
    ("<｜tool▁calls▁begin｜>", "", ()),
    ("<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [1}<｜tool▁call▁end｜>x", "x", (("f", '{"a": [1}'),)),
    ("<｜tool▁call▁begin｜>now<｜tool▁sep｜>{} trailing<｜tool▁call▁end｜>", " trailing", (NOW,)),
    ("<｜tool", "<｜tool", ()),
)  # fmt: skip

PYTHONIC: tuple[Row, ...] = (
    ("[get_weather(city='Paris')]", "", (C1,)),
    ('[get_weather(city="Paris")]', "", (C1,)),
    ('  [get_weather( city = "Paris" , )]', "", (C1,)),
    ("[now(), now()]", "", (NOW, NOW)),
    ('[get_weather("Paris", unit="c")]', "", (("get_weather", '{"city": "Paris", "unit": "c"}'),)),
    ("[f(d={'x': [1, (2, 3)], 'y': {}}, c=True, n=None)]", "", (("f", '{"d": {"x": [1, [2, 3]], "y": {}}, "c": true, "n": null}'),)),
    ("[f(b=-3, e=1e3)]", "", (("f", '{"b": -3, "e": 1000.0}'),)),
    ("[f(b=1_000, e=.5)]", "", (("f", '{"b": 1000, "e": 0.5}'),)),
    ("[f(c=true, n=null)]", "", (("f", '{"c": true, "n": null}'),)),
    (r"[f(a='it\'s \u00e9 \x41 \n')]", "", (("f", '{"a": "it\'s é A \\n"}'),)),
    ("[f(a='one' 'two')]", "", (("f", '{"a": "onetwo"}'),)),
    ("[f(a='x)], now()')]", "", (("f", '{"a": "x)], now()"}'),)),
    ("[f(a=__import__('os').system('id'))]", "", (("f", '{"a": "__import__(\'os\').system(\'id\')"}'),)),
    ("[f(b=2**99999999)]", "", (("f", '{"b": "2**99999999"}'),)),
    ("[f(d=[x for x in y])]", "", (("f", '{"d": "[x for x in y]"}'),)),
    ("[f(a='Par", "", (("f", '{"a": \'Par'),)),
    ("[f(b=1, a='Par", "", (("f", '{"b": 1, "a": \'Par'),)),
    ("[f(", "", (("f", ""),)),
    ("[f", "[f", ()),
    ("[unknown(a=1)]", "[unknown(a=1)]", ()),
    ("[see (1) and (2)]", "[see (1) and (2)]", ()),
    ("[now()] and then", " and then", (NOW,)),
    ("[now(), oops]", "oops]", (NOW,)),
    ("now()", "now()", ()),
    ("[f(d=[1})]", "})]", (("f", '{"d": [1'),)),
    ("[f(e=1e999)]", "", (("f", '{"e": "1e999"}'),)),
    ("[f(b=" + "9" * 5000 + ")]", "", (("f", '{"b": "' + "9" * 5000 + '"}'),)),
    ("[f(d=" + "[" * 150 + "]" * 150 + ")]", "", (("f", '{"d": "' + "[" * 150 + "]" * 150 + '"}'),)),
)  # fmt: skip

QWEN3_XML: tuple[Row, ...] = (
    ("<tool_call>\n<function=now>\n</function>\n</tool_call>", "", (NOW,)),
    ("<function=now></function>", "", (NOW,)),
    ("<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>", "", (C1,)),
    ("<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", "", (C1,)),
    ("<tool_call><function=f><parameter=a>\n\nx\n\n</parameter></function></tool_call>", "", (("f", '{"a": "\\nx\\n"}'),)),
    ("<tool_call><function=f><parameter=a>\n</parameter></function></tool_call>", "", (("f", '{"a": ""}'),)),
    ("<tool_call><function=f><parameter=a></parameter></function></tool_call>", "", (("f", '{"a": ""}'),)),
    ("<tool_call><function=f><parameter=b>5</parameter><parameter=c>True</parameter></function></tool_call>", "",
     (("f", '{"b": 5, "c": true}'),)),
    ("<tool_call><function=f><parameter=n>None</parameter></function></tool_call>", "", (("f", '{"n": null}'),)),
    ("<tool_call><function=f><parameter=b>five</parameter></function></tool_call>", "", (("f", '{"b": "five"}'),)),
    ("<tool_call><function=f><parameter=b>NaN</parameter></function></tool_call>", "", (("f", '{"b": "NaN"}'),)),
    ("<tool_call><function=f><parameter=d>{'x': 1}</parameter></function></tool_call>", "", (("f", '{"d": "{\'x\': 1}"}'),)),
    ('<tool_call><function=f><parameter=d>{"x": 1}</parameter></function></tool_call>', "", (("f", '{"d": {"x": 1}}'),)),
    ("<tool_call><function=f><parameter=a><b>bold</b> </function> <parameter=c></parameter></function></tool_call>", "",
     (("f", '{"a": "<b>bold</b> </function> <parameter=c>"}'),)),
    ("<tool_call><function=unknown><parameter=x>1</parameter><parameter=y>z</parameter></function></tool_call>", "",
     (("unknown", '{"x": 1, "y": "z"}'),)),
    ("<tool_call><function=now></tool_call>after", "after", (NOW,)),
    ("<tool_call><function=f><parameter=a>Par", "", (("f", '{"a": "Par'),)),
    ("<tool_call><function=f><parameter=b>12", "", (("f", '{"b": 12'),)),
    ("<tool_call><function=f><parameter=b>1</parameter>", "", (("f", '{"b": 1'),)),
    ("<tool_call><function=f", "<tool_call><function=f", ()),
    ("<tool_call>words</tool_call>", "<tool_call>words</tool_call>", ()),
    ("<tool_call></tool_call>", "<tool_call></tool_call>", ()),
    ("<tool_call><function=></function></tool_call>", "<tool_call><function=></function></tool_call>", ()),
    ("<tool_call><function=now></function></tool_call><tool_call><function=now></function></tool_call>", "", (NOW, NOW)),
    ("<function=now></function>\n<tool_call><function=now></function></tool_call>", "", (NOW, NOW)),
)  # fmt: skip

GLM45: tuple[Row, ...] = (
    ("<tool_call>now\n</tool_call>", "", (NOW,)),
    ("<tool_call>now</tool_call>", "", (NOW,)),
    ("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>", "", (C1,)),
    ("<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>", "", (C1,)),
    ("\nI look.<tool_call>now</tool_call>", "\nI look.", (NOW,)),
    ("<tool_call>f\n<arg_key>b</arg_key>\n<arg_value>5</arg_value>\n</tool_call>", "", (("f", '{"b": 5}'),)),
    ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>5</arg_value>\n</tool_call>", "", (("f", '{"a": "5"}'),)),
    ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>\nx\n</arg_value>\n</tool_call>", "", (("f", '{"a": "\\nx\\n"}'),)),
    ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value></tool_call></arg_value>\n</tool_call>", "", (("f", '{"a": "</tool_call>"}'),)),
    ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>Par", "", (("f", '{"a": "Par'),)),
    ("<tool_call>f\n<arg_key>a", "", (("f", ""),)),
    ("<tool_call>two words</tool_call>", "<tool_call>two words</tool_call>", ()),
    ("<tool_call></tool_call>", "<tool_call></tool_call>", ()),
    ("<tool_call>now", "<tool_call>now", ()),
    ("<tool_call>", "<tool_call>", ()),
    ("<tool_call>now</tool_call>\n<tool_call>now</tool_call>", "", (NOW, NOW)),
    ("<tool_call>f junk<arg_key>a</arg_key></tool_call>", "<tool_call>f junk<arg_key>a</arg_key></tool_call>", ()),
)  # fmt: skip

GPT_OSS: tuple[Row, ...] = (
    ("<|channel|>commentary to=functions.now<|message|>{}<|call|>", "", (NOW,)),
    ('<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>', "", (C1,)),
    ("<|start|>assistant to=functions.now<|channel|>commentary <|constrain|>json<|message|>{}<|call|>", "", (NOW,)),
    ("Look: <|channel|>commentary to=functions.now<|message|>{}<|call|>", "Look:", (NOW,)),
    ("<|channel|>commentary to=functions.now<|message|>{", "", (("now", "{"),)),
    ("<|channel|>commentary to=functions.now", "<|channel|>commentary to=functions.now", ()),
    ("<|channel|>commentary to=functions.now<|message|>words<|call|>",
     "<|channel|>commentary to=functions.now<|message|>words<|call|>", ()),
)  # fmt: skip

TABLES: dict[str, tuple[Row, ...]] = {
    "hermes": HERMES, "llama3_json": LLAMA3, "mistral": MISTRAL, "deepseek_v3": DEEPSEEK, "deepseek_v31": DEEPSEEK,
    "pythonic": PYTHONIC, "qwen3_xml": QWEN3_XML, "glm45": GLM45, "gpt_oss": GPT_OSS,
    "seed_oss": tuple(
        (text.replace("tool_call>", "seed:tool_call>"), content.replace("tool_call>", "seed:tool_call>"), calls)
        for text, content, calls in QWEN3_XML
    ),
}  # fmt: skip


def tables() -> dict[str, list[Row]]:
    """All rows by parser: those above, and those of tool_outputs.json (text, content, calls)."""
    found = {module: list(rows) for module, rows in TABLES.items()}
    more = json.loads(Path(__file__).with_name("tool_outputs.json").read_text(encoding="utf-8"))
    for module, rows in more.items():
        found.setdefault(module, []).extend((text, content, tuple((name, given) for name, given in calls)) for text, content, calls in rows)
    return found
