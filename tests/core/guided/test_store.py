"""Compiled constraints are kept while there is room for them, and no longer."""

from __future__ import annotations

import psutil

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.guided.backends import Backends
from engine.guided.store import GuideStore
from engine.plugin import GuideSpec


def spec(number):
    properties = {f"field_{number}": {"type": "string"}, "age": {"type": "integer"}}
    return GuideSpec("json", {"type": "object", "properties": properties}, "xgrammar")


def test_memory_is_bounded_over_2000_schemas():
    capacity = 8 * 2**20
    store = GuideStore(Backends(resolve(EngineArgs(model="demo", max_model_len=512))), capacity)
    kept = store.get(spec(0)).result()
    for number in range(1, 300):
        store.get(spec(number)).result()
    filled = psutil.Process().memory_info().rss
    for number in range(300, 2000):
        store.get(spec(number)).result()
    assert store.nbytes() <= capacity + 2 * kept.nbytes()
    assert 10 < len(store) < 300
    assert psutil.Process().memory_info().rss < filled + 16 * 2**20
    assert kept.start()  # who has a guide keeps it
    newest = store.get(spec(1999))
    assert newest.done() and store.get(spec(1999)) is newest
    store.close()
