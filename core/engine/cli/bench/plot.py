"""Pictures of measurements; matplotlib is an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.cli.bench.rounds import Round


def require() -> Any:
    """``matplotlib.figure``. Raises ConfigError where it is not installed."""
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib, which is not installed.", fix="pip install 'engine[bench]'") from error
    return figure


def draw(path: str, rounds: Mapping[str, Sequence[Round]]) -> None:
    """Cumulative distributions of every server's times, as PNG (or what the file's ending says)."""
    picture = require().Figure(figsize=(12, 4), layout="constrained")
    panels = picture.subplots(1, 3)
    for url, each in rounds.items():
        done = [request for one in each for request in one.completed()]
        times = {
            "time to first token": [request.ttft for request in done],
            "time between tokens": [gap for request in done for gap in request.itl],
            "end to end": [request.e2e for request in done],
        }
        for panel, (title, values) in zip(panels, times.items(), strict=True):
            ordered = sorted(value * 1000 for value in values)
            panel.step(ordered, [(place + 1) / len(ordered) * 100 for place in range(len(ordered))], where="post", label=url)
            panel.set(title=title, xlabel="ms", ylabel="% of all", ylim=(0, 100))
            panel.grid(alpha=0.3)
    panels[0].legend()
    try:
        picture.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path}: cannot be written: {error}.", fix="--plot bench.png") from error
