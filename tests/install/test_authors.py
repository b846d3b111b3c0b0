"""A plugin author's first minutes, with the wheel in a fresh environment: new, pip install, test; green for every kind."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from engine.plugin.kinds import KINDS
from tests.install.test_wheel import run, wheel

__all__ = ["wheel"]
pytestmark = [pytest.mark.install, pytest.mark.timeout(900)]
NAMES = [kind.name for kind in KINDS]
#: What the extra asks for, and whether it is there.
_EXTRA = """
import json, re
from importlib import metadata
lines = [line for line in metadata.requires("engine") if re.search(r"extra == .testing.", line)]
print(json.dumps([metadata.version(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines]))
"""


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, and a package of each kind as ``engine plugins new`` writes it. Dependencies are lent by the environment of the tests."""
    place = tmp_path_factory.mktemp("authors")
    venv.create(place / "venv", with_pip=False)
    library = next((place / "venv" / "lib").glob("python*")) / "site-packages"
    (library / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", place / "venv" / "bin" / "python", "install", "--quiet", "--no-index", "--no-deps"]
    run(*pip, "--ignore-installed", wheel)
    engine = place / "venv" / "bin" / "engine"
    for kind in NAMES:
        said = run(engine, "plugins", "new", kind, f"acme_{kind}", cwd=place)
        assert f"pip install ./acme_{kind} && engine plugins test acme_{kind}" in said
    run(*pip, "--no-build-isolation", *(place / f"acme_{kind}" for kind in NAMES))
    return place / "venv" / "bin"


def test_the_extra_brings_the_kit(bin_folder: Path, tmp_path: Path) -> None:
    versions = json.loads(run(bin_folder / "python", "-c", _EXTRA, cwd=tmp_path))
    assert versions
    where = run(bin_folder / "python", "-c", "import engine.plugin.testing as kit; print(kit.__file__)", cwd=tmp_path)
    assert str(bin_folder.parent) in where


def test_all_are_listed(bin_folder: Path, tmp_path: Path) -> None:
    rows = json.loads(run(bin_folder / "engine", "plugins", "list", "--json", cwd=tmp_path))
    assert {row["kind"] for row in rows if row["name"].startswith("acme_")} == set(NAMES)


@pytest.mark.parametrize("kind", NAMES)
def test_it_is_green_as_written(bin_folder: Path, tmp_path: Path, kind: str) -> None:
    said = run(bin_folder / "engine", "plugins", "test", f"acme_{kind}", cwd=tmp_path)
    assert int(re.search(r"(\d+) passed", said)[1]) >= 7, said


def test_their_own_tests_run_too(bin_folder: Path) -> None:
    place = bin_folder.parent.parent / "acme_policy"
    said = run(bin_folder / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=place)
    assert " passed" in said and "failed" not in said
