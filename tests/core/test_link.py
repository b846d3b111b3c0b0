"""The engine's end of the connection: whatever ends the reading ends the engine."""

from __future__ import annotations

import pytest

from engine.messages import Stop
from engine.process import Link


class Frames:
    """A connection that delivers these frames, then ends as told."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = list(frames)

    def recv_bytes(self) -> bytes:
        if not self.frames:
            raise EOFError
        return self.frames.pop(0)

    def close(self) -> None:
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("frames", [(), (b"junk",), (b"\x82\xa4type\xa3Add\xa7request\xc0",)])
def test_an_engine_that_cannot_read_stops(frames: tuple[bytes, ...]) -> None:
    link = Link(Frames(*frames))  # type: ignore[arg-type]
    link.start()
    assert isinstance(link._inbox.get(timeout=10), Stop)
    link._reader.join(timeout=10)  # whose error, one of the junk, must not be reported in some later test
    link.close()
