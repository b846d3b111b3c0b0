"""Tools and tool_choice of the Messages API in the form that chat has."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import RequestError

_WORDS = {"auto": "auto", "any": "required", "none": "none"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Chat's ``tools``, ``tool_choice`` and ``parallel_tool_calls``; ``others``: types of tools that only a hosted service runs."""

    tools: list[dict[str, Any]]
    others: list[str]
    choice: Any
    parallel: bool | None


def read_tools(tools: list[Any] | None, choice: dict[str, Any] | None) -> Asked:
    """What a body asks for. Raises RequestError naming the tool."""
    functions, others = [], []
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise RequestError(f"{where} must be an object.", param=where)
        kind = tool.get("type")
        if kind not in (None, "custom"):
            others.append(str(kind))
        else:
            functions.append(_function(tool, where))
    parallel = None
    if choice is not None and choice.get("disable_parallel_tool_use"):
        parallel = False
    return Asked(tools=functions, others=others, choice=_choice(choice), parallel=parallel)


def _function(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise RequestError(f"{where}.name must be a text.", param=f"{where}.name")
    if not isinstance(tool.get("input_schema"), dict):
        raise RequestError(f"{where}.input_schema must be an object.", param=f"{where}.input_schema")
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _choice(choice: dict[str, Any] | None) -> Any:
    if choice is None:
        return None
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind not in _WORDS:
        raise RequestError(f"tool_choice.type cannot be {str(kind)[:60]!r}; allowed: auto, any, tool, none.", param="tool_choice.type")
    return _WORDS[kind]
