"""What the front end and the compile process say to each other, as length-prefixed msgpack over pipes."""

from __future__ import annotations

import struct
from enum import StrEnum

import msgspec

from engine.plugin.request import GuideSpec

LENGTH = struct.Struct("<I")


class Verdict(StrEnum):
    """READY: compiled within its budget. UNSUPPORTED: the backend lacks ``text``. WRONG: the constraint is wrong in itself.
    EXPENSIVE: it passed the budget. BUSY: the machine gave it too little of a processor. MISSING: the backend cannot be loaded.
    BROKEN: the backend failed."""

    READY = "ready"
    UNSUPPORTED = "unsupported"
    WRONG = "wrong"
    EXPENSIVE = "expensive"
    BUSY = "busy"
    MISSING = "missing"
    BROKEN = "broken"


class Job(msgspec.Struct, frozen=True):
    """Compile ``spec`` with the backend that it names."""

    id: int
    spec: GuideSpec


class Judgement(msgspec.Struct, frozen=True):
    """The answer to a job. ``seconds`` of a processor that compiling took, ``nbytes`` of the guide, ``breaks``: whether its texts may
    begin with line breaks; ``passing``: another time it may be another verdict."""

    id: int
    verdict: Verdict
    text: str = ""
    seconds: float = 0.0
    nbytes: int = 0
    breaks: bool = False
    passing: bool = False


def frame(message: msgspec.Struct) -> bytes:
    """A message with its length before it."""
    payload = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(payload)) + payload
