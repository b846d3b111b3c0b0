"""The documentation keeps up: every kind, hook, package and command of it is real, and none is left out."""

from __future__ import annotations

import inspect
import re

from engine.errors import PluginError
from engine.plugin import spec
from engine.plugin.kinds import KINDS
from tests.sources import REPOSITORY, ROOTS
from tools import docs

PLUGINS = REPOSITORY / "docs" / "plugins.md"


def test_the_generated_tables_are_current():
    text = PLUGINS.read_text()
    assert docs.render(text) == text, "run: python -m tools.docs"


def test_the_guide_is_current():
    assert docs.GUIDE.read_text() == docs.guide(), "run: python -m tools.docs"


def test_every_kind_and_every_hook_argument_is_documented():
    text = PLUGINS.read_text()
    for kind in KINDS:
        assert f"`{kind.group}`" in text and kind.contract.__name__ in text
    for name, function in vars(spec).items():
        if name.startswith("engine_"):
            line = next(line for line in text.splitlines() if line.startswith(f"- `{name}("))
            assert all(argument in line for argument in inspect.signature(function).parameters)
            assert inspect.getdoc(function)


def test_every_plugin_error_is_in_the_table():
    text = PLUGINS.read_text()
    assert PluginError.__subclasses__()
    assert all(f"`{error.__name__}`" in text for error in PluginError.__subclasses__())


def test_the_example_is_the_one_that_is_tested():
    example = (REPOSITORY / "tests/thirdparty/acme_engine_npz/acme_engine_npz.py").read_text()
    assert example.strip() in PLUGINS.read_text()


def test_every_package_is_in_the_architecture():
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    core = REPOSITORY / "core" / "engine"
    packages = [f"engine.{folder.name}" for folder in core.iterdir() if (folder / "__init__.py").exists()]
    assert packages
    for package in [*packages, "engine.bundled", *ROOTS]:
        assert f"`{package}`" in text or package == "engine", package
    for module in core.glob("[a-z]*.py"):
        assert f"`{module.stem}`" in text, module.stem
    for named in re.findall(r"^\| `engine\.(\w+)` ", text, re.MULTILINE):
        assert (core / named).is_dir(), named


def test_the_readme_names_the_two_commands():
    text = (REPOSITORY / "README.md").read_text()
    assert "engine serve demo" in text and "-m pytest" in text
    for file in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (REPOSITORY / file).exists(), file
