"""Fixtures of the conformance kit; pytest loads them wherever the engine is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from engine.plugin.host import PluginHost
    from engine.plugin.testing.server import EngineServer

_SUITES = (
    "base", "devices", "executors", "guides", "loading", "models", "parsers", "quantizers", "sampling", "scheduling", "serving", "text",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"engine.plugin.testing.{name}" for name in _SUITES))


def pytest_configure(config: pytest.Config) -> None:
    """The kit's own marker."""
    config.addinivalue_line("markers", "engine_requires(capability): holds of plugins that claim the capability")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a seeded two-layer Llama in float32, its config, and the demo model's tokenizer and chat template."""
    from engine.plugin.testing.checkpoint import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture
def plugin_host() -> Callable[..., PluginHost]:
    """``plugin_host((kind, name, module), …)``: a host that knows these plugins alone, whatever is installed."""
    from engine.plugin.discovery import Entry
    from engine.plugin.host import PluginHost

    def make(*plugins: tuple[str, str, str]) -> PluginHost:
        return PluginHost([Entry(kind, name, module, "under-test 0") for kind, name, module in plugins])

    return make


@pytest.fixture
def blocked_import() -> Callable[[str], AbstractContextManager[None]]:
    """``with blocked_import("numpy"):`` behaves as if the package were not installed."""

    @contextmanager
    def block(package: str) -> Iterator[None]:
        blocker = _Blocker(package)
        held = {name: sys.modules.pop(name) for name in list(sys.modules) if blocker.covers(name)}
        sys.meta_path.insert(0, blocker)
        try:
            yield
        finally:
            sys.meta_path.remove(blocker)
            sys.modules.update(held)

    return block


@pytest.fixture
def engine_server(tmp_path: Path) -> Iterator[Callable[..., EngineServer]]:
    """``engine_server("demo", "--flag", …)``: a healthy ``engine serve`` on a free port of this machine, stopped at the test's end."""
    from engine.plugin.testing.server import EngineServer

    running: list[EngineServer] = []

    def start(*arguments: str) -> EngineServer:
        running.append(EngineServer(tmp_path / f"server-{len(running)}.log", arguments))
        running[-1].wait()
        return running[-1]

    yield start
    for server in running:
        server.stop()


class _Blocker:
    """A finder that finds nothing of one package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def covers(self, name: str) -> bool:
        return name == self._package or name.startswith(f"{self._package}.")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if self.covers(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
