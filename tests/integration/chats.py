"""Chats as tests hold them: tools, and the same question whole and streamed."""

from __future__ import annotations


def tool(name: str, **types: str) -> dict:
    properties = {key: {"type": kind} for key, kind in types.items()}
    schema = {"type": "object", "properties": properties, "required": list(types), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


TOOLS = [tool("get_weather", city="string"), tool("add", a="integer", b="integer")]




def both(client, question: str, **fields):
    """The whole answer's choice and usage, after comparing it with the streamed one."""
    fields = {"model": "demo", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 200} | fields
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **fields))
    choice, message = whole.choices[0], whole.choices[0].message
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == (message.content or "")
    for name in ("reasoning", "reasoning_content"):
        assert "".join(getattr(delta, name, None) or "" for delta in deltas) == (getattr(message, name) or "")
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    for index, call in enumerate(message.tool_calls or ()):
        mine = [piece for piece in pieces if piece.index == index]
        assert mine[0].id and mine[0].type == "function" and mine[0].function.name == call.function.name
        assert all(piece.id is None and piece.function.name is None for piece in mine[1:])
        assert "".join(piece.function.arguments for piece in mine) == call.function.arguments
    assert {piece.index for piece in pieces} == set(range(len(message.tool_calls or ())))
    assert next(chunk.choices[0].finish_reason for chunk in reversed(chunks) if chunk.choices) == choice.finish_reason
    assert chunks[-1].usage == whole.usage
    return choice, whole.usage
