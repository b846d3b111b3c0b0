"""``engine plugins``: which plugins are installed, what one takes and promises; write, test and examine them."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import sys
from dataclasses import asdict
from typing import Any

from engine.errors import UnknownPlugin
from engine.plugin.discovery import Entry, scan
from engine.plugin.listing import Listed, describe, source_file


def run(argv: list[str]) -> int:
    """``list [--kind K] [--json]`` imports nothing; ``show NAME [--kind K]`` imports that plugin's light module.

    ``new``, ``test``, ``doctor`` and ``docs`` are for their authors: see :mod:`engine.cli.plugin_authors`.
    """
    args = _parser().parse_args(argv)
    entries = scan()
    if args.action in ("new", "test", "doctor", "docs"):
        from engine.cli import plugin_authors

        return plugin_authors.run(args, entries)
    known = sorted({entry.kind for entry in entries})
    if args.kind and args.kind not in known:
        raise UnknownPlugin(
            f"--kind {args.kind}: no plugin of that kind is installed.", fix=f"one of {', '.join(known)}"
        )
    chosen = [entry for entry in entries if args.kind in (None, entry.kind)]
    if args.action == "list" and args.url:
        from engine.cli.remote import plugin_standings

        rows_of_server = [row for row in plugin_standings(args.url, args.api_key) if args.kind in (None, row["kind"])]
        print(json.dumps(rows_of_server, indent=2) if args.json else _failures(rows_of_server))
        return 0
    if args.action == "list":
        rows = describe(chosen)
        print(json.dumps([asdict(row) for row in rows], indent=2) if args.json else _table(rows))
        return 0
    found = [entry for entry in chosen if entry.name == args.name]
    if not found:
        raise _unknown(args.name, chosen)
    print("\n\n".join(_show(row) for row in describe(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="engine plugins", description="List, show, write, test and examine plugins.", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="every installed plugin, without importing any", allow_abbrev=False)
    listing.add_argument("--kind", help="only this kind, such as loader")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--url", help="which plugins of a running server have failed, and which it has switched off")
    listing.add_argument("--api-key", help="the server's key, for --url")
    show = actions.add_parser("show", help="contract, options and documentation of one plugin", allow_abbrev=False)
    show.add_argument("name")
    show.add_argument("--kind", help="where several kinds have a plugin of that name")
    new = actions.add_parser("new", help="write the package of a new plugin, which works as written", allow_abbrev=False)
    new.add_argument("kind", help="such as loader")
    new.add_argument("name", help="what the flag will say, such as acme")
    new.add_argument("--out", help="the directory to write (default: ./NAME)")
    test = actions.add_parser("test", help="hold installed plugins to the contract of their kind (extra 'testing')", allow_abbrev=False)
    test.add_argument("name", help="a plugin's name, or a distribution's")
    test.add_argument("--kind", help="where several kinds have a plugin of that name")
    test.add_argument("--verbose", action="store_true", help="name every test and the reasons of skipped ones")
    doctor = actions.add_parser("doctor", help="find what is wrong with the plugins (0 nothing, 1 costs, 2 faults)", allow_abbrev=False)
    doctor.add_argument("--kind", help="only this kind, such as loader")
    docs = actions.add_parser("docs", help="the contract of a kind, with a complete example", allow_abbrev=False)
    docs.add_argument("kind", help="such as loader")
    return parser


def _table(rows: list[Listed]) -> str:
    """Aligned columns, the last one cut to the terminal's width where the output is one."""
    lines = [(row.kind, row.name, row.distribution, row.needs or "ready", row.about) for row in rows]
    lines.insert(0, ("KIND", "NAME", "DISTRIBUTION", "STATE", "ABOUT"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return "\n".join(
        "  ".join([*(text.ljust(size) for text, size in zip(line, widths, strict=False)), line[4]])[:width].rstrip()
        for line in lines
    )


def _failures(rows: list[dict[str, Any]]) -> str:
    """What a server says of its plugins."""
    if not rows:
        return "No plugin has failed."
    return "\n".join(
        f"{row['kind']} {row['name']} ({row['distribution']}): {row['failures']} failures, "
        + (f"switched off for {row['quarantined_seconds']} s" if row["quarantined_seconds"] else "in use")
        + f"; the last: {row['last']}"
        for row in rows
    )


def _show(row: Listed) -> str:
    from engine.plugin.blame import label
    from engine.plugin.host import PluginHost
    from engine.plugin.kinds import kind
    from engine.plugin.options import describe_options

    host = PluginHost()
    about = kind(row.kind)
    module = host.module(about, host.resolve(about, row.name))
    facts = [
        ("kind", f"{row.kind}: {about.about}"),
        ("chosen by", label(about, row.name) if about.flag else "the model's configuration or the request"),
        ("distribution", row.distribution),
        ("module", f"{row.module} ({source_file(row.module.partition(':')[0]) or 'no source file'})"),
        ("state", f"needs: {row.needs}" if row.needs else "ready"),
        ("hook", f"{about.hook}{_arguments(about.hook)}"),
        ("contract", f"engine.plugin.{about.contract.__name__}: {_methods(about.contract)}"),
    ]
    lines = [
        row.name,
        *(f"  {name:<13} {value}" for name, value in facts),
        "  options       " + _options(describe_options(module)),
    ]
    doc = inspect.getdoc(module) or "(no documentation)"
    return "\n".join([*lines, "", *(f"  {line}".rstrip() for line in doc.splitlines())])


def _arguments(hook: str) -> str:
    from engine.plugin import spec

    return str(inspect.signature(getattr(spec, hook))).partition(" ->")[0].replace("'", "")


def _methods(contract: type) -> str:
    required = sorted(getattr(contract, "__abstractmethods__", ()))
    optional = sorted(
        name
        for name, value in vars(contract).items()
        if callable(value) and not name.startswith("_") and name not in required
    )
    parts = [
        f"must have {', '.join(required)}" if required else "",
        f"may have {', '.join(optional)}" if optional else "",
    ]
    return "; ".join(filter(None, parts)) or "its hooks"


def _options(options: Any) -> str:
    rows = [f"{name}: {hint}" + (f" = {default}" if default else " (required)") for name, hint, default in options]
    return ("\n" + " " * 16).join(rows) if rows else "none"


def _unknown(name: str, entries: list[Entry]) -> UnknownPlugin:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted({entry.name for entry in entries}), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UnknownPlugin(f"{name}: no such plugin.{hint}", fix="engine plugins list")
