"""Tool calls as models write them, one function per format; made from the formats' descriptions, not from the parsers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Calls = Sequence[tuple[str, dict[str, Any]]]


def _json(name: str, arguments: dict[str, Any], key: str = "arguments") -> str:
    return f'{{"name": {json.dumps(name)}, "{key}": {json.dumps(arguments, ensure_ascii=False)}}}'


def _list(calls: Calls) -> str:
    return "[" + ", ".join(_json(*call) for call in calls) + "]"


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def hermes(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{_json(*call)}\n</tool_call>" for call in calls)


def llama3_json(calls: Calls) -> str:
    return "<|python_tag|>" + "; ".join(_json(name, arguments, "parameters") for name, arguments in calls)


def xlam(calls: Calls) -> str:
    return _list(calls)


def xlam_marked(calls: Calls) -> str:
    return f"[TOOL_CALLS]{_list(calls)}"


def jamba(calls: Calls) -> str:
    return f"<tool_calls>{_list(calls)}</tool_calls>"


def granite(calls: Calls) -> str:
    return f"<|tool_call|>{_list(calls)}"


def granite_20b_fc(calls: Calls) -> str:
    return "\n".join(f"<function_call> {_json(*call)}" for call in calls)


def internlm(calls: Calls) -> str:
    return "".join(f"<|action_start|><|plugin|>\n{_json(name, arguments, 'parameters')}<|action_end|>\n" for name, arguments in calls)


def phi4_mini_json(calls: Calls) -> str:
    return f"functools{_list(calls)}"


def minimax_m1(calls: Calls) -> str:
    return "<tool_calls>\n" + "\n".join(_json(*call) for call in calls) + "\n</tool_calls>"


def mistral(calls: Calls) -> str:
    return f"[TOOL_CALLS]{_list(calls)}"


def mistral_2025(calls: Calls) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}" for name, arguments in calls)


def deepseek_v3(calls: Calls) -> str:
    inner = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{json.dumps(arguments, ensure_ascii=False)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def deepseek_v31(calls: Calls) -> str:
    inner = "".join(
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{_bare(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls
    )
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def kimi_k2(calls: Calls) -> str:
    inner = "".join(
        f"<|tool_call_begin|>functions.{name}:{place}<|tool_call_argument_begin|>{_bare(arguments)}<|tool_call_end|>"
        for place, (name, arguments) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def gpt_oss(calls: Calls) -> str:
    return "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{json.dumps(arguments, ensure_ascii=False)}<|call|>"
        for name, arguments in calls
    )


def qwen3_xml(calls: Calls, begin: str = "<tool_call>", end: str = "</tool_call>") -> str:
    written = []
    for name, arguments in calls:
        inner = "".join(f"<parameter={key}>\n{_bare(value)}\n</parameter>\n" for key, value in arguments.items())
        written.append(f"{begin}\n<function={name}>\n{inner}</function>\n{end}")
    return "\n".join(written)


def seed_oss(calls: Calls) -> str:
    return qwen3_xml(calls, "<seed:tool_call>", "</seed:tool_call>")


def minimax_m2(calls: Calls) -> str:
    inner = ""
    for name, arguments in calls:
        written = "".join(f'<parameter name="{key}">{_bare(value)}</parameter>\n' for key, value in arguments.items())
        inner += f'<invoke name="{name}">\n{written}</invoke>\n'
    return f"<minimax:tool_call>\n{inner}</minimax:tool_call>"


def deepseek_v32(calls: Calls) -> str:
    inner = ""
    for name, arguments in calls:
        written = "".join(
            f'<｜DSML｜parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">{_bare(value)}</｜DSML｜parameter>\n'
            for key, value in arguments.items()
        )
        inner += f'<｜DSML｜invoke name="{name}">\n{written}</｜DSML｜invoke>\n'
    return f"<｜DSML｜function_calls>\n{inner}</｜DSML｜function_calls>"


def glm45(calls: Calls) -> str:
    written = []
    for name, arguments in calls:
        inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{_bare(value)}</arg_value>\n" for key, value in arguments.items())
        written.append(f"<tool_call>{name}\n{inner}</tool_call>")
    return "\n".join(written)


def _python(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def pythonic(calls: Calls) -> str:
    return "[" + ", ".join(_python(*call) for call in calls) + "]"


def llama4_pythonic(calls: Calls) -> str:
    return f"<|python_start|>{pythonic(calls)}<|python_end|>"


def olmo3(calls: Calls) -> str:
    return "<function_calls>\n" + "\n".join(_python(*call) for call in calls) + "\n</function_calls>"


Format = Callable[[Calls], str]
#: module, format, whether content may stand before the calls, whether the arguments are JSON text in the format.
FORMATS: tuple[tuple[str, Format, bool, bool], ...] = (
    ("hermes", hermes, True, True), ("llama3_json", llama3_json, True, True), ("xlam", xlam, False, True),
    ("xlam", xlam_marked, True, True), ("jamba", jamba, True, True), ("granite", granite, True, True),
    ("granite_20b_fc", granite_20b_fc, True, True), ("internlm", internlm, True, True),
    ("phi4_mini_json", phi4_mini_json, True, True), ("minimax_m1", minimax_m1, True, True), ("mistral", mistral, True, True),
    ("mistral", mistral_2025, True, True), ("deepseek_v3", deepseek_v3, True, True), ("deepseek_v3", deepseek_v31, True, True),
    ("deepseek_v31", deepseek_v31, True, True), ("kimi_k2", kimi_k2, True, True), ("gpt_oss", gpt_oss, True, True),
    ("qwen3_xml", qwen3_xml, True, False), ("seed_oss", seed_oss, True, False), ("minimax_m2", minimax_m2, True, False),
    ("deepseek_v32", deepseek_v32, True, False), ("glm45", glm45, True, False), ("pythonic", pythonic, False, False),
    ("llama4_pythonic", llama4_pythonic, True, False), ("olmo3", olmo3, True, False),
)  # fmt: skip
