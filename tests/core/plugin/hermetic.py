"""A host over plugin sources written by the test."""

from __future__ import annotations

from engine.plugin.host import Entry, PluginHost

GOOD = '''
"""A loader of nothing."""
from engine.plugin import Loader, hookimpl
ENGINE_API = 1
class Nothing(Loader):
    def __init__(self, options=None): self.options = options
    def describe(self): return []
    def tensors(self): return iter(())
@hookimpl
def engine_create_loader(options): return Nothing(options)
'''
HEAD = "from engine.plugin import Loader, Use, hookimpl\nENGINE_API = 1\n"
ARGS = {"checkpoint": None, "info": None, "options": None}


def hermetic(tmp_path, monkeypatch):
    """A host whose plugins are the sources given to ``add(name, source)``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    entries: list[Entry] = []
    made = PluginHost(entries)

    def add(name: str, source: str, *, kind: str = "loader", distribution: str = "acme-engine 0.3") -> None:
        module = f"acme_{tmp_path.name.replace('-', '_')}_{len(entries)}"
        (tmp_path / f"{module}.py").write_text(source)
        entries.append(Entry(kind, name, module, distribution))
        made.__dict__["_given"] = entries
        made.__dict__.pop("_entries", None)

    made.add = add  # type: ignore[attr-defined]
    return made
