"""Empty modules in place of torch and transformers, for a process that holds no tensors: it starts in a quarter of the time and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

NAMES = ("torch", "transformers")


class _Nothing:
    """Takes every call and attribute; stands for a dtype, a constant, a function."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever is given is forgotten."""

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


class _StandIn(ModuleType):
    """Every name with a capital is a class, for annotations and isinstance; every other one is nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made: Any = type(name, (), {}) if name[0].isupper() else _Nothing()
        setattr(self, name, made)
        return made


@contextmanager
def standing_in(names: tuple[str, ...] = NAMES, *, stay: bool = True) -> Iterator[None]:
    """Within the block the modules are empty, unless they are loaded already; also afterwards, if they ``stay``. Where the block fails,
    what it imported is forgotten, so that it can be tried again with the real ones."""
    before = set(sys.modules)
    made = {name: _StandIn(name) for name in names if name not in before}
    sys.modules.update(made)
    try:
        yield
    except BaseException:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        raise
    if not stay:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
