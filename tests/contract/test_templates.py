"""What ``engine plugins new`` writes passes its suite as written, for every kind: these are the examples of the guide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.plugin.kinds import KINDS
from engine.plugin.scaffold import template, write_package
from engine.plugin.testing.suites import SUITES
from tests.sources import REPOSITORY, ROOTS


def engine(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """The command, with the modules and metadata in ``place`` installed."""
    path = os.pathsep.join([str(place), *(str(REPOSITORY / root) for root in ROOTS.values())])
    return subprocess.run(
        [sys.executable, "-m", "engine", *argv], capture_output=True, text=True, check=False, timeout=280, cwd=place,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One distribution per kind, as pip would install it."""
    place = tmp_path_factory.mktemp("site")
    for kind in KINDS:
        package = tmp_path_factory.mktemp(kind.name) / "package"
        name = f"acme_{kind.name}"
        write_package(kind.name, name, package)
        for module in package.glob("*.py"):
            shutil.copy(module, place)
        info = place / f"acme_{kind.name}_engine-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{kind.name}-engine\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[engine.{kind.name}]\n{name} = {name}_engine\n")
    return place


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_the_example_passes_its_suite(site: Path, kind: str) -> None:
    done = engine(site, "plugins", "test", f"acme_{kind}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 7, done.stdout


def test_the_doctor_finds_nothing_wrong_with_them(site: Path) -> None:
    done = engine(site, "plugins", "doctor", "--kind", "policy")
    assert done.returncode == 0, done.stdout
    assert "0 faults" in done.stdout


def test_every_kind_has_a_suite_and_an_example() -> None:
    assert set(SUITES) == {kind.name for kind in KINDS}
    assert all(template(kind) for kind in KINDS)


def test_a_package_is_a_whole_one(tmp_path: Path) -> None:
    written = {path.name for path in write_package("loader", "acme", tmp_path / "acme")}
    assert written == {"pyproject.toml", "README.md", "acme_engine.py", "acme_engine_conformance.py", "test_acme.py"}
    assert 'acme = "acme_engine"' in (tmp_path / "acme" / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "told"), [("lodaer", "acme", "loader"), ("loader", "no-name", "letters, digits"), ("loader", "class", "such as acme")]
)
def test_mistakes_are_named(tmp_path: Path, kind: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError) as failed:
        write_package(kind, name, tmp_path / "acme")
    assert told in f"{failed.value} {failed.value.fix}"


def test_an_existing_place_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        write_package("loader", "acme", tmp_path)
