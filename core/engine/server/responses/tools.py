"""Tools and tool_choice of the Responses API in the form that chat has."""

from __future__ import annotations

from typing import Any

from engine.errors import RequestError


def read_tools(tools: list[Any] | None) -> tuple[list[dict[str, Any]], list[str]]:
    """(function tools as chat has them, the types of the others: nothing here runs those, and clients send them regardless)."""
    functions, others = [], []
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise RequestError(f"{where} must be an object.", param=where)
        if tool.get("type") != "function":
            others.append(str(tool.get("type")))
            continue
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise RequestError(f"{where}.name must be a text.", param=f"{where}.name")
        function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
        functions.append({"type": "function", "function": function})
    return functions, others


def read_choice(choice: str | dict[str, Any] | None) -> Any:
    """tool_choice as chat has it; what chat refuses stays as it is."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "function":
        return _named(choice)
    if choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        named = [_named(tool) for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else listed
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": named}}
    raise RequestError(
        f"tool_choice.type cannot be {str(choice.get('type'))[:60]!r}: this server calls function tools only.", param="tool_choice"
    )


def _named(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool.get("name")}}
