"""Adds a body's constraint to its sampling parameters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.guided.fields import GuidedFields, read_guide
from engine.plugin.request import SamplingParams
from engine.server.service import Service


async def constrain(service: Service, body: GuidedFields, params: Sequence[SamplingParams]) -> list[SamplingParams]:
    """``params`` with the constraint that the body asks for, compiled; as they are where it asks for none. Raises RequestError."""
    asked = read_guide(body)
    if asked is None:
        return list(params)
    guide = await service.guides.prepare(*asked)
    return [msgspec.structs.replace(each, guide=guide) for each in params]
