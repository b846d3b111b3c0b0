"""Counts finished requests and tells at /example/count; an extension named example."""

from __future__ import annotations

from typing import Any

from engine.plugin import RequestRecord, hookimpl

ENGINE_API = 1


class Counter:
    """How many requests ended, by reason."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}


_COUNTER = Counter()


@hookimpl
def engine_add_routes(app: Any) -> None:
    def count() -> dict[str, int]:
        return _COUNTER.ended

    app.get("/example/count")(count)


@hookimpl
def engine_request_finished(record: RequestRecord) -> None:
    _COUNTER.ended[record.finish_reason] = _COUNTER.ended.get(record.finish_reason, 0) + 1
