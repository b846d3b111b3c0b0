"""Suites of scheduling: policies, preemption modes, KV cache types."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import ClassVar

import msgspec

from engine.plugin.contracts.scheduling import KVCacheType, PreemptionMode, RequestView, SchedulingPolicy
from engine.plugin.testing.base import PluginContract, requires


def views(count: int, seed: int = 0) -> list[RequestView]:
    """Requests of all sorts; some differ in their id alone."""
    chance = random.Random(seed)
    return [
        RequestView(
            id=f"r{number:04}", priority=chance.choice([-1, 0, 0, 5]), arrival=float(number // 4),
            prompt_tokens=chance.choice([1, 7, 7, 900]), output_tokens=chance.randrange(3), computed=chance.choice([0, 16, 5000]),
            preemptions=chance.randrange(3), adapter=chance.choice([None, "a", "b"]),
        )
        for number in range(count)
    ]  # fmt: skip


class PolicyContract(PluginContract):
    """Capabilities: ``fair`` (of equal requests the older runs first; later arrivals cannot hold one back for ever)."""

    kind_name = "policy"
    capabilities = frozenset({"fair"})

    def test_the_order_is_total(self, plugin: SchedulingPolicy) -> None:
        requests = views(200)
        keys = [plugin.key(request) for request in requests]
        ordered = sorted(keys)
        assert all(a < b for a, b in pairwise(ordered)), "two requests have the same key: end it with the id"

    def test_keys_depend_on_the_request_alone(self, plugin: SchedulingPolicy) -> None:
        requests = views(50)
        before = [plugin.key(request) for request in requests]
        for request in reversed(requests):
            plugin.key(request)
        assert [plugin.key(request) for request in requests] == before

    def test_keys_do_not_change_while_a_request_lives(self, plugin: SchedulingPolicy) -> None:
        for request in views(50):
            later = msgspec.structs.replace(request, output_tokens=request.output_tokens + 9, computed=77)
            assert plugin.key(later) == plugin.key(request), "a key that moves would leave its heap in disorder"

    def test_nobody_preempts_itself_or_is_preempted_back(self, plugin: SchedulingPolicy) -> None:
        requests = views(60)
        for a in requests:
            assert not plugin.may_preempt(a, a)
            mutual = [b.id for b in requests if plugin.may_preempt(a, b) and plugin.may_preempt(b, a)]
            assert not mutual, "two requests would preempt each other in turns"

    def test_refusals_have_a_reason(self, plugin: SchedulingPolicy) -> None:
        for priority in (-100, 0, 7):
            reason = plugin.check(priority)
            assert reason is None or (isinstance(reason, str) and reason)
        assert plugin.check(0) is None, "a request without a priority must be served"

    @requires("fair")
    def test_the_older_of_equal_requests_is_first(self, plugin: SchedulingPolicy) -> None:
        old = views(1)[0]
        for number in range(1, 50):
            assert plugin.key(old) < plugin.key(msgspec.structs.replace(old, id=f"r{number:04}", arrival=old.arrival + number))


class PreemptionContract(PluginContract):
    """A mode answers for any victim, and never asks for room that is not there."""

    kind_name = "preemption"

    def test_it_swaps_only_into_room_that_is_there(self, plugin: PreemptionMode) -> None:
        for victim in views(30):
            for pages in (1, 5, 100):
                for free in (0, pages - 1, pages, 1000):
                    answer = plugin.swap(victim, pages, free)
                    assert isinstance(answer, bool)
                    assert not (answer and free < pages), f"{pages} pages were to be swapped into {free}"

    def test_it_swaps_only_where_it_says_that_it_needs_the_room(self, plugin: PreemptionMode) -> None:
        swaps = any(plugin.swap(victim, 1, 1000) for victim in views(30))
        assert isinstance(plugin.needs_host_pages(), bool)
        assert plugin.needs_host_pages() or not swaps, "it swaps, but needs_host_pages() is False: no host pages would exist"


class KVCacheTypeContract(PluginContract):
    """The storage is a dtype that torch has, at most as wide as float32."""

    kind_name = "kv_cache_dtype"
    model_dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")

    def test_the_storage_is_a_dtype(self, plugin: KVCacheType) -> None:
        import torch

        for dtype in self.model_dtypes:
            name = plugin.storage(dtype)
            stored = getattr(torch, name, None)
            assert isinstance(stored, torch.dtype), f"{name!r} is not a torch dtype"
            assert stored.is_floating_point and stored.itemsize <= 4

    def test_scaling_is_told(self, plugin: KVCacheType) -> None:
        assert isinstance(plugin.scaled(), bool)
