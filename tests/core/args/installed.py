"""What the tests take as installed: the project's own entry points, read from pyproject.toml, and further ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

from engine.plugin.discovery import Entry

_PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def project_entries() -> list[Entry]:
    """Every ``engine.*`` entry point of this project."""
    groups = tomllib.loads(_PYPROJECT.read_text())["project"]["entry-points"]
    return [
        Entry(group.removeprefix("engine."), name, module, "engine 0.1.0")
        for group, rows in groups.items()
        for name, module in rows.items()
    ]


def fake_entries() -> list[Entry]:
    """A fixed set of names, for tests of the command line alone: nothing of it exists or is imported."""
    names = {
        "loader": "auto dummy pt safetensors acme", "config_format": "auto hf", "tokenizer": "auto slow", "device": "auto cpu cuda",
        "executor": "mp uni", "policy": "fcfs priority", "preemption": "recompute swap", "kv_cache_dtype": "auto",
        "model_impl": "auto vllm transformers", "task": "auto generate",
    }  # fmt: skip
    entries = [Entry(kind, name, f"nowhere.{name}", "engine 0.1.0") for kind, row in names.items() for name in row.split()]
    return [*entries, Entry("loader", "acme", "acme_loader", "acme-loader 2.0")]
