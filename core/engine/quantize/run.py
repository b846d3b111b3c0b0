"""One run of ``engine quantize``: source, method, folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.plugin.contracts.packed import LinearShape
from engine.plugin.contracts.producing import Producer, SourceModel
from engine.plugin.host import PluginHost
from engine.plugin.kinds import PRODUCER
from engine.quantize.folder import check_place, written
from engine.quantize.report import Report, report_of
from engine.quantize.source import Source
from engine.quantize.writing import expected_bytes, write


@dataclass(frozen=True)
class Wish:
    """What the command line says. ``ignore``: patterns of layer names; ``ends``: --include-head; ``file_bytes``: of the largest file."""

    method: str
    out: Path
    options: dict[str, Any] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    ends: bool | None = None
    file_bytes: int = 5_000_000_000
    bar: bool = True


def quantize(config: EngineConfig, wish: Wish) -> Report:
    """Write ``wish.out``, which appears when it is complete. Raises :class:`ConfigError`, :class:`ModelFileError`, plugins' errors."""
    check_place(wish.out, 0)
    started = time.monotonic()
    source = Source(config)
    try:
        excluded = _excluding(wish.ignore, source.layers)
        host = PluginHost()
        created = host.create(PRODUCER, wish.method, model=_model(source, wish, excluded), options=wish.options)
        producer: Producer = created.plugin
        if not any(producer.takes(layer) and not excluded(layer.name) for layer in source.layers):
            raise ConfigError(f"--method {wish.method}: there is no layer that it would quantize.", fix="fewer --ignore patterns")
        check_place(wish.out, expected_bytes(source, producer, excluded))
        total = sum(info.nbytes for info in source.infos)
        with ended_by_signals(), written(wish.out) as folder, _meter(total, wish.bar) as advance:
            done = write(source, producer, excluded, folder, wish.file_bytes, advance)
    finally:
        source.close()
    seconds = time.monotonic() - started
    model = config.model.checkpoint.model
    return report_of(model, created.choice.name, str(wish.out), producer.describe(), seconds, done, list(producer.warnings()))


def _model(source: Source, wish: Wish, excluded: Callable[[str], bool]) -> SourceModel:
    model = source.config.model
    layers = tuple(layer for layer in source.layers if not excluded(layer.name))
    return SourceModel(model.checkpoint, dict(model.config), model.info, source.infos, layers, wish.ends)


def _excluding(patterns: Sequence[str], layers: Sequence[LinearShape]) -> Callable[[str], bool]:
    """Whether a name, or what it lies below, matches a pattern of ``*`` and ``?``. A pattern that matches nothing is an error."""

    def matches(name: str, pattern: str) -> bool:
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or fnmatchcase(name, f"*.{pattern}")

    for pattern in patterns:
        if not any(matches(layer.name, pattern) for layer in layers):
            raise ConfigError(f"--ignore {pattern}: no layer's name matches; one is {layers[0].name!r}.", fix="--ignore '*.down_proj'")
    return lambda name: any(matches(name, pattern) for pattern in patterns)


@contextmanager
def _meter(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, desc="Quantizing", disable=None if shown else True, leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends what is under way as Ctrl-C does, so that nothing half-written stays and what was done is told."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
