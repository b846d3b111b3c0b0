"""Suites of tasks, KV connectors and extensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.plugin.contracts.serving import KVConnector, RequestRecord, Task
from engine.plugin.facts import AttentionSpec, ModelInfo
from engine.plugin.host import PluginHost
from engine.plugin.kinds import EXTENSION_HOOKS, Kind
from engine.plugin.testing.base import PluginContract

ENDPOINTS = frozenset({"completions", "chat", "embeddings", "pooling", "score", "rerank", "classify", "transcriptions"})


class TaskContract(PluginContract):
    """A task opens known endpoints, and at least one."""

    kind_name = "task"

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        return {"info": ModelInfo("LlamaForCausalLM", vocab_size=64, hidden_size=64, layers=(spec,), max_model_len=64)}

    def test_it_opens_known_endpoints(self, plugin: Task) -> None:
        endpoints = plugin.endpoints()
        assert endpoints and endpoints <= ENDPOINTS, f"{sorted(endpoints)}; known are {sorted(ENDPOINTS)}"

    def test_pooling_tasks_do_not_continue_text(self, plugin: Task) -> None:
        assert not (plugin.pooling() and plugin.endpoints() & {"completions", "chat"})


class KVConnectorContract(PluginContract):
    """What can be fetched is told in whole tokens, never more than the prompt has left."""

    kind_name = "kv_connector"

    @pytest.fixture(params=["scheduler", "worker"])
    def hook_args(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"options": dict(self.options), "role": request.param}

    def test_matches_are_bounded(self, plugin: KVConnector) -> None:
        for length in (0, 1, 16, 100):
            for computed in (0, length // 2, length):
                found = plugin.matched(list(range(length)), computed)
                assert isinstance(found, int)
                assert 0 <= found <= length - computed

    def test_asking_changes_nothing(self, plugin: KVConnector) -> None:
        assert plugin.matched(list(range(64)), 16) == plugin.matched(list(range(64)), 16)


class ExtensionContract(PluginContract):
    """An extension is its module's hooks; it must have at least one of them."""

    kind_name = "extension"

    def has_hook(self, hooks: Any, row: Kind[Any]) -> bool:
        return any(getattr(hooks, name).get_hookimpls() for name in EXTENSION_HOOKS)

    @pytest.fixture
    def plugin(self, host: PluginHost, row: Kind[Any], choice: Any) -> Any:
        """The module's hooks."""
        from engine.plugin.activate import registered

        return registered(row, choice, host.module(row, choice)).hook

    def test_it_keeps_the_contract(self, plugin: Any, row: Kind[Any]) -> None:
        assert self.has_hook(plugin, row)

    def test_every_creation_is_its_own(self, create: Callable[[], Any]) -> None:
        pytest.skip("an extension has no object")

    def test_it_lives_through_a_server_without_requests(self, plugin: Any) -> None:
        plugin.engine_started(info={"model": "demo"})
        plugin.engine_stopping()

    def test_it_takes_the_record_of_any_request(self, plugin: Any) -> None:
        for reason in ("stop", "length", "abort", "error"):
            record = RequestRecord("r1", "demo", 5, 0, 0, reason, 0.0, 0.0, 0.1, "chat")
            plugin.engine_request_finished(record=record)

    def test_its_routes_can_be_added(self, plugin: Any) -> None:
        from fastapi import FastAPI

        application = FastAPI()
        before = len(application.routes)
        plugin.engine_add_routes(app=application, client=None)
        assert bool(plugin.engine_add_routes.get_hookimpls()) == (len(application.routes) > before)
