"""The kit sees what it is for: each sabotaged plugin fails exactly the tests that are meant for its fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.plugin.kinds import kind
from engine.plugin.scaffold import template
from tests.contract.sabotage import SABOTAGES
from tests.sources import REPOSITORY, ROOTS


def install(place: Path) -> str:
    """Every sabotaged plugin as an installed module; returns what the kit is asked to test."""
    groups: dict[str, list[str]] = {}
    for name, sabotage in SABOTAGES.items():
        source = template(kind(sabotage.kind)) or ""
        old, new = sabotage.change
        assert source.count(old) >= 1, f"{name}: the example no longer holds {old!r}"
        module = f"bad_{name}"
        suite = template(kind(sabotage.kind), "_conformance")
        broken = source.replace(old, new)
        broken = re.sub(r"\bexample\b", name, broken)
        (place / f"{module}.py").write_text(broken.replace("example_conformance", module + "_conformance"))
        if suite:
            (place / f"{module}_conformance.py").write_text(re.sub(r"\bexample\b", name, suite))
        groups.setdefault(sabotage.kind, []).append(f"{name} = {module}")
    info = place / "bad_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugins\nVersion: 1\n")
    sections = (f"[engine.{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items())
    (info / "entry_points.txt").write_text("".join(sections))
    return ",".join(f"{sabotage.kind}:{name}" for name, sabotage in SABOTAGES.items())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Sabotage → test → passed, failed or skipped."""
    place = tmp_path_factory.mktemp("site")
    wanted = install(place)
    (place / "pytest.ini").write_text("[pytest]\n")
    path = os.pathsep.join([str(place), *(str(REPOSITORY / root) for root in ROOTS.values())])
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "engine.plugin.testing.fixtures", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, "--pyargs", "engine.plugin.testing.installed", "--junitxml=report.xml", "--tb=line"],
        cwd=place, capture_output=True, text=True, check=False, timeout=280,
        env={**os.environ, "PYTHONPATH": path, "ENGINE_TEST_PLUGINS": wanted, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert (place / "report.xml").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(place / "report.xml").iter("testcase"):
        plain = case.get("classname", "").rpartition(".Test_")[2]
        state = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found.setdefault(plain, {})[case.get("name", "")] = state
    return found


@pytest.mark.parametrize("name", SABOTAGES)
def test_it_is_caught(outcomes: dict[str, dict[str, str]], name: str) -> None:
    sabotage = SABOTAGES[name]
    results = outcomes[f"{sabotage.kind}_{name}"]
    failed = {test for test, state in results.items() if state in ("failure", "error")}
    if sabotage.caught == ("*",):
        assert failed
    else:
        assert failed == set(sabotage.caught)
