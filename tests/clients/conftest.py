"""One ``engine serve demo`` for all clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.serving import serve

HERE = Path(__file__).parent
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "auto", "--enable-reasoning", "--reasoning-parser", "auto")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here has the marker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address, without /v1."""
    log = tmp_path_factory.mktemp("clients") / "server.log"
    with serve(log, "demo", *FLAGS, healthy_within=240.0) as server:
        yield server.url
