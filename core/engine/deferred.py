"""torch's rules for tensors without contents: imported before anything that may compute with such tensors, not at every start."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Registers them when it is imported: a fifth of the time and 18 MiB of ``import torch``.
_RULES = "torch._meta_registrations"
#: Parts of torch that read the rules.
_READERS = ("torch._dynamo", "torch._inductor")
#: Packages whose modules are known to need no rules: the engine's own, and what those import in every server.
_APART = frozenset((
    "engine", "engine_devices", "engine_parsers", "engine_plugins", "engine_quant",
    "torch", "numpy", "ml_dtypes", "triton", "msgspec", "typing_extensions", "pluggy", "stevedore", "yaml", "tokenizers", "safetensors",
    "regex", "xgrammar", "tvm_ffi", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "tiktoken", "tiktoken_ext",
    "sentencepiece", "tqdm",
))  # fmt: skip


def defer() -> None:
    """For a process of the engine's own, before torch is imported: the rules wait until torch's compiler or a package that is not the
    engine's is imported (a plugin, transformers), or something asks the module for an attribute. Where torch is there already, nothing
    happens."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


def _is_foreign(name: str) -> bool:
    """Whether it is a package that may compute with such tensors. What torch itself imports while it is imported cannot."""
    if name in _APART or name in sys.stdlib_module_names or name.startswith("_"):
        return False
    torch = getattr(sys.modules.get("torch"), "__spec__", None)
    return not getattr(torch, "_initializing", False) and PathFinder.find_spec(name) is not None


class _Deferred(ModuleType):
    """The module before it is executed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        complete()
        return getattr(sys.modules[_RULES], name)


class _Finder(MetaPathFinder):
    """Finds the rules, and sees what else is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in _READERS or (path is None and _is_foreign(name)):
            # The rules themselves are found as ever from now on.
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            complete()
        elif name == _RULES:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Later(spec.loader)
            return spec
        return None


class _Later(Loader):
    """Makes the module, and executes it when it is asked to."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()
        self._begun = False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Not now."""

    def complete(self, module: ModuleType) -> None:
        """Execute it, if nobody has begun to."""
        with self._lock:
            if not self._begun:
                self._begun = True
                module.__class__ = ModuleType
                self._loader.exec_module(module)


def complete() -> None:
    """Import the rules now, if they were deferred."""
    module = sys.modules.get(_RULES)
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if module is not None and isinstance(loader, _Later):
        loader.complete(module)
