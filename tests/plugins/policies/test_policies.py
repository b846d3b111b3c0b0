"""The order of requests, how pages are given up, what the cache stores."""

from __future__ import annotations

import importlib
from itertools import permutations
from typing import Any

import msgspec
import pytest

from engine.plugin import KVCacheType, PreemptionMode, RequestView, SchedulingPolicy
from engine.plugin.facts import DTYPE_BYTES

BASE = RequestView(id="r", priority=0, arrival=1.0, prompt_tokens=5, output_tokens=0, computed=0, preemptions=0)


def view(**fields: Any) -> RequestView:
    return msgspec.structs.replace(BASE, **fields)


def create(module: str, hook: str) -> Any:
    return getattr(importlib.import_module(f"engine_plugins.{module}"), hook)()


def policy(name: str) -> SchedulingPolicy:
    made = create(f"policies.{name}", "engine_create_policy")
    assert isinstance(made, SchedulingPolicy)
    return made


def preemption(name: str) -> PreemptionMode:
    made = create(f"preemption.{name}", "engine_create_preemption")
    assert isinstance(made, PreemptionMode)
    return made


@pytest.mark.parametrize("name", ["fcfs", "priority"])
def test_keys_are_a_total_order_that_does_not_change_while_a_request_lives(name: str) -> None:
    order = policy(name)
    views = [view(id=id, arrival=arrival) for id in "ab" for arrival in (1.0, 2.0)]
    assert all(order.key(one) != order.key(other) for one, other in permutations(views, 2))
    assert order.key(view()) == order.key(view(output_tokens=9, computed=13, preemptions=2))


def test_fcfs_goes_by_arrival_and_refuses_priorities() -> None:
    order = policy("fcfs")
    assert order.key(view(id="z", arrival=1.0)) < order.key(view(id="a", arrival=2.0))
    assert order.check(0) is None
    assert "--scheduling-policy priority" in (order.check(3) or "")
    assert not order.may_preempt(view(arrival=0.0), view(arrival=9.0))


def test_priority_goes_by_priority_then_arrival_and_preempts_only_worse_ones() -> None:
    order = policy("priority")
    ranked = [view(priority=-1, arrival=9.0), view(arrival=1.0), view(arrival=2.0), view(priority=4, arrival=0.0)]
    assert [order.key(one) for one in ranked] == sorted(order.key(one) for one in ranked)
    assert order.check(-5) is None
    running = view(priority=2, arrival=9.0)
    assert [order.may_preempt(view(priority=p), running) for p in (1, 2, 3)] == [True, False, False]


def test_recompute_never_swaps_and_swap_does_where_there_is_room() -> None:
    assert not preemption("recompute").swap(view(), 1, 100)
    assert not preemption("recompute").needs_host_pages()
    assert [preemption("swap").swap(view(), pages, 4) for pages in (3, 4, 5)] == [True, True, False]
    assert preemption("swap").needs_host_pages()


def test_auto_stores_the_model_dtype() -> None:
    kind = create("kv_cache_dtypes.auto", "engine_create_kv_cache_type")
    assert isinstance(kind, KVCacheType) and not kind.scaled()
    for dtype in ("float32", "float16", "bfloat16"):
        assert kind.storage(dtype) == dtype in DTYPE_BYTES
