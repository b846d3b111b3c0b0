"""Writes the table of metrics in docs/observing.md from what a server really shows; ``--check`` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "observing.md"
START, END = "<!-- generated: metrics -->", "<!-- end -->"
_SUFFIX = {"counter": "_total", "gauge": "", "histogram": "", "info": ""}


def table(registry: CollectorRegistry) -> str:
    """One row per family: name as Prometheus stores it, kind, meaning."""
    rows = ["| metric | kind | meaning |", "|---|---|---|"]
    families: list[Metric] = sorted(registry.collect(), key=lambda family: family.name)
    for family in families:
        rows.append(f"| `{family.name}{_SUFFIX[family.type]}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


def render(text: str, registry: CollectorRegistry) -> str:
    """The page with the table filled anew."""
    before, rest = text.split(START)
    return f"{before}{START}\n{table(registry)}\n{END}{rest.split(END, 1)[1]}"


def registry() -> CollectorRegistry:
    """That of a server with every detail."""
    import msgspec

    from engine.config import ObservabilityConfig
    from engine.server.service import Service
    from tests.core.server.fake_client import FakeClient
    from tests.core.server.serving import make_config

    config = msgspec.structs.replace(make_config(), observability=ObservabilityConfig(details=("model", "worker")))
    service = Service(config, FakeClient(), None)
    service.close()
    return service.metrics.registry


def main() -> int:
    """Write, or with --check compare; the exit status."""
    text = PAGE.read_text()
    made = render(text, registry())
    if "--check" in sys.argv:
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
