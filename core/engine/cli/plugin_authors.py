"""``engine plugins new|test|doctor|docs``: for those who write plugins, and those who wonder which one is at fault."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.errors import MissingDependency, UnknownPlugin
from engine.plugin.discovery import Entry

#: Status of ``test`` where a test failed.
FAILED = 1


def run(args: argparse.Namespace, entries: list[Entry]) -> int:
    """Do what ``args.action`` says; returns the exit status."""
    match args.action:
        case "new":
            return _new(args.kind, args.name, args.out)
        case "test":
            return _test(entries, args.name, args.kind, verbose=args.verbose)
        case "doctor":
            return _doctor([entry for entry in entries if args.kind in (None, entry.kind)])
        case _:
            return _docs(args.kind)


def _new(kind: str, name: str, out: str | None) -> int:
    from engine.plugin.scaffold import write_package

    place = Path(out or name)
    for path in write_package(kind, name, place):
        print(path)
    print(f"\nIt works as it is:  pip install {_spelled(place)} && engine plugins test {name} --kind {kind}")
    return 0


def _spelled(place: Path) -> str:
    return str(place) if place.is_absolute() else f"./{place}"


def _test(entries: list[Entry], name: str, kind: str | None, *, verbose: bool) -> int:
    chosen = [entry for entry in entries if name in (entry.name, entry.distribution.rpartition(" ")[0]) and kind in (None, entry.kind)]
    if not chosen:
        known = sorted({entry.name for entry in entries} | {entry.distribution.rpartition(" ")[0] for entry in entries})
        raise _unknown(name, known)
    try:
        import pytest  # noqa: F401 - only to say in one line that it is missing
    except ImportError as error:
        problem = "engine plugins test needs the package 'pytest', which is not installed."
        raise MissingDependency(problem, fix="pip install 'engine[testing]'") from error
    wanted = ",".join(f"{entry.kind}:{entry.name}" for entry in chosen)
    # No configuration and no plugins of the directory that this happens to run in.
    environment = {**os.environ, "ENGINE_TEST_PLUGINS": wanted, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "pytest.ini"
        settings.write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-c", str(settings), "-p", "engine.plugin.testing.fixtures", "-p", "no:cacheprovider"]
        command += ["--pyargs", "engine.plugin.testing.installed", "--tb=short", *(["-v", "-rs"] if verbose else ["-q"])]
        status = subprocess.run(command, env=environment, check=False).returncode
    return 0 if status == 0 else FAILED


def _doctor(entries: list[Entry]) -> int:
    from engine.plugin.doctor import examine, missing_extras

    findings = list(examine(entries))
    for finding in sorted(findings, key=lambda finding: not finding.serious):
        print(f"{'fault' if finding.serious else 'cost '}  {finding.plugin}: {finding.text}")
    for line in missing_extras(entries):
        print(f"extra  {line}")
    faults = sum(finding.serious for finding in findings)
    print(f"{len(entries)} plugins examined: {faults} faults, {len(findings) - faults} that cost")
    return 2 if faults else 1 if findings else 0


def _docs(name: str) -> int:
    from engine.plugin.kinds import KINDS
    from engine.plugin.reference import reference

    kind = next((row for row in KINDS if row.name == name), None)
    if kind is None:
        raise _unknown(name, [row.name for row in KINDS])
    print(reference(kind))
    return 0


def _unknown(name: str, known: list[str]) -> UnknownPlugin:
    from engine.args.spelling import nearest

    near = nearest(name, known)
    return UnknownPlugin(f"{name}: there is no such name.", fix=near or f"one of {', '.join(known[:20])}")
