"""A host with the project's plugins and the fakes, and a tiny Llama."""

from __future__ import annotations

import pytest

from engine.args import EngineArgs
from engine.plugin.discovery import Entry
from engine.plugin.host import PluginHost
from tests.core.args.installed import project_entries
from tests.core.plan.checkpoints import write_llama


@pytest.fixture
def entries() -> list[Entry]:
    own = [entry for entry in project_entries() if entry.kind != "model_impl"]
    return [
        *own,
        Entry("device", "fake", "tests.core.plan.fake_device", "fakes 1.0"),
        Entry("model_impl", "auto", "tests.core.plan.native_impl", "fakes 1.0"),
    ]


@pytest.fixture
def host(entries) -> PluginHost:
    return PluginHost(entries)


@pytest.fixture
def llama(tmp_path):
    return write_llama(tmp_path / "llama")


@pytest.fixture
def arguments(entries, llama):
    """EngineArgs on the fake device, with the tiny Llama unless another model is named."""

    def make(**values) -> EngineArgs:
        return EngineArgs(entries=entries, **({"model": str(llama), "device": "fake"} | values))

    return make
