"""Adds a body's constraint to its sampling parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.errors import RequestError
from engine.guided.fields import GuidedFields, read_guide, verify
from engine.plugin.request import GuideSpec, SamplingParams
from engine.server.openai.protocol import ChatBody
from engine.server.openai.tools import Calling
from engine.server.service import Service
from engine.tracing import piece


async def constrain(
    service: Service, body: GuidedFields, params: Sequence[SamplingParams], *, calls: GuideSpec | None = None,
    offered: GuideSpec | None = None, place: Callable[[GuideSpec], GuideSpec] | None = None,
) -> list[SamplingParams]:  # fmt: skip
    """``params`` with the constraint that the body asks for, compiled; as they are where it asks for none. Raises RequestError.

    ``calls``: the constraint that enforces tool calls; the answer is then no text that another one could shape. ``offered``: the one
    that holds calls to their schemas where the body asks for no other. ``place``: says where in the output the constraint begins.
    """
    asked = read_guide(body)
    if calls is not None:
        asked = ("tool_choice", calls)
    if asked is None and offered is not None:
        asked = ("tools", offered)
    if asked is None:
        return list(params)
    field, spec = asked
    if service.tokenizer is None:
        raise RequestError(f"{field} needs a tokenizer, and this server runs without one (--skip-tokenizer-init).", param=field)
    with piece("compile_guide", "guided_decoding") as compiled:
        guide = await service.guides.prepare(field, place(spec) if place is not None else spec)
        compiled.plugin = guide.backend
    return [msgspec.structs.replace(each, guide=guide) for each in params]


async def check_strict(service: Service, body: ChatBody, calling: Calling, guide: GuideSpec | None) -> None:
    """Where calls obey ``guide``: raise RequestError for a tool that is to be called strictly and whose parameters the guide's backend
    cannot enforce to the last keyword."""
    if guide is None:
        return
    called = {tool["function"]["name"] for tool in calling.tools}
    for index, tool in enumerate(body.tools or ()):
        function = tool["function"]
        if function.get("strict") is True and function["name"] in called and function.get("parameters") is not None:
            spec = GuideSpec("json", function["parameters"], guide.backend)
            field = f"tools[{index}].function.parameters"
            verify(field, spec)
            await service.guides.check(field, spec)
