"""Writes the package of a new plugin: a working one of its kind, and the suite that holds it to its contract."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path

from engine.errors import ConfigError
from engine.plugin.kinds import KINDS, Kind

_PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{project}"
version = "0.1"
description = "{about}"
requires-python = ">=3.11"
dependencies = ["engine"]

[project.optional-dependencies]
test = ["engine[testing]"]

[project.entry-points."engine.{kind}"]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
include = ["{module}*.py"]
"""
_README = """# {project}

A plugin of the kind `{kind}` for engine, named `{name}`.

    pip install .
    engine plugins show {name} --kind {kind}
    engine plugins test {name}

`{module}.py` is the plugin, `{module}_conformance.py` (or `tests/`) says what its suite needs to know. `engine plugins docs {kind}` prints
the contract.
"""
_TEST = '''"""The plugin keeps the contract of its kind."""

from engine.plugin.testing import {suite}


class Test{title}({suite}):
    name = "{name}"
'''
_NAMED_TEST = '''"""The plugin keeps the contract of its kind."""

from {module}_conformance import Test{title}

__all__ = ["Test{title}"]
'''


def template(kind: Kind[object], part: str = "") -> str | None:
    """The source of a kind's example (``part`` ``_conformance``: of its suite), None where there is none."""
    file = resources.files("engine.plugin.templates") / f"{kind.name}{part}.py"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def write_package(kind_name: str, name: str, place: Path) -> list[Path]:
    """The files of a package in ``place``, which must not exist. Raises ConfigError naming what is wrong."""
    kind = next((row for row in KINDS if row.name == kind_name), None)
    if kind is None:
        raise ConfigError(f"{kind_name}: there is no such kind of plugin.", fix=f"one of {', '.join(row.name for row in KINDS)}")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} cannot be the new plugin's name: letters, digits and _ are needed.", fix="such as acme")
    if place.exists():
        raise ConfigError(f"{place} exists already.", fix="another name, or --out with another place")
    files = _files(kind, name)
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, encoding="utf-8")
    return [place / path for path in files]


def _files(kind: Kind[object], name: str) -> dict[str, str]:
    from engine.plugin.testing.table import SUITE_NAMES

    module = f"{name.lower()}_engine"
    values = {
        "project": module.replace("_", "-"), "kind": kind.name, "name": name, "module": module, "about": kind.about,
        "title": _title(name), "suite": SUITE_NAMES[kind.name],
    }  # fmt: skip
    conformance = template(kind, "_conformance")
    files = {
        "pyproject.toml": _PYPROJECT.format(**values),
        "README.md": _README.format(**values),
        f"{module}.py": _rename(template(kind) or "", name, module),
        f"tests/test_{name.lower()}.py": (_NAMED_TEST if conformance else _TEST).format(**values),
    }
    if conformance:
        files[f"{module}_conformance.py"] = _rename(conformance, name, module)
    return files


def _rename(source: str, name: str, module: str) -> str:
    renamed = source.replace("example_conformance", f"{module}_conformance").replace("Example", _title(name))
    return re.sub(r"\bexample\b", name, renamed)


def _title(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_") if part)
