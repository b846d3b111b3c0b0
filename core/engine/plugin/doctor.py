"""Examines the installed plugins: what would be refused when chosen, and what is merely slow or impolite."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

from engine.plugin.api import API_VERSION
from engine.plugin.discovery import Entry
from engine.plugin.kinds import KINDS
from engine.plugin.listing import describe
from engine.plugin.testing.probe import probe_import

#: Seconds of processor time that importing a plugin may take before the doctor mentions it.
SLOW = 0.25
#: Where each kind's plugin is imported.
PROCESSES: dict[str, str] = {
    "loader": "worker", "config_format": "front end", "tokenizer": "front end", "tokenizer_pool": "front end", "quantization": "worker",
    "device": "front end, worker", "executor": "engine", "policy": "front end, engine", "preemption": "engine", "kv_cache_dtype": "worker",
    "guided_decoding": "front end, worker", "model_impl": "front end, worker", "model": "front end, worker", "speculation": "worker",
    "acceptance": "worker", "kv_connector": "engine, worker", "logits_processor": "front end, worker", "reasoning_parser": "front end",
    "tool_parser": "front end", "task": "front end", "producer": "engine quantize", "extension": "front end",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """``serious``: choosing the plugin would be refused. Otherwise it works, and costs."""

    plugin: str
    serious: bool
    text: str


def examine(entries: Iterable[Entry], *, imports: bool = True) -> Iterator[Finding]:
    """Every finding about the plugins, duplicates and missing modules first. ``imports``: import each in a process of its own."""
    entries = list(entries)
    yield from _unknown_kinds(entries)
    yield from _duplicates(entries)
    present = []
    for entry in entries:
        finding = _stale(entry)
        if finding is None:
            present.append(entry)
        else:
            yield finding
    if imports:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for findings in pool.map(_imported, present):
                yield from findings


def missing_extras(entries: Iterable[Entry]) -> list[str]:
    """``kind name: pip install …`` of the plugins whose optional packages are absent; that is no fault."""
    return [f"{row.kind} {row.name}: {row.needs}" for row in describe(entries) if row.needs]


def _unknown_kinds(entries: list[Entry]) -> Iterator[Finding]:
    known = {row.name for row in KINDS}
    for entry in entries:
        if entry.kind not in known:
            yield Finding(_shown(entry), True, f"the group engine.{entry.kind} is no kind of plugin; kinds are {', '.join(sorted(known))}")


def _duplicates(entries: list[Entry]) -> Iterator[Finding]:
    offers: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        offers[entry.kind, entry.name].append(entry)
    for found in offers.values():
        if len(found) > 1:
            offered = ", ".join(each.distribution for each in found)
            yield Finding(_shown(found[0]), True, f"offered by more than one distribution: {offered}")


def _stale(entry: Entry) -> Finding | None:
    module = entry.module.partition(":")[0]
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is not None:
        return None
    text = f"its metadata names the module {module!r}, which does not exist: install {entry.distribution} again"
    return Finding(_shown(entry), True, text)


def _imported(entry: Entry) -> list[Finding]:
    module = entry.module.partition(":")[0]
    try:
        report = probe_import(module)
    except AssertionError as error:
        return [Finding(_shown(entry), True, f"{module} cannot be imported: {str(error).strip().splitlines()[-1]}")]
    found = []
    if report["api"] != API_VERSION:
        found.append(Finding(_shown(entry), True, f"says ENGINE_API = {report['api']}; this engine speaks {API_VERSION}"))
    costs = [
        (report["heavy"], f"importing it imports {', '.join(report['heavy'])}"),
        (report["seconds"] > SLOW, f"importing it takes {report['seconds']:.2f} s of processor time"),
        (report["changed"], f"importing it changes {', '.join(report['changed'])}"),
        (report["printed"], "importing it prints"),
    ]
    return found + [Finding(_shown(entry), False, text) for wrong, text in costs if wrong]


def _shown(entry: Entry) -> str:
    return f"{entry.kind} {entry.name} ({entry.distribution}; runs in: {PROCESSES.get(entry.kind, 'nothing')})"
