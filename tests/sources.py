"""The product's own source files, for tests that read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROOTS = {
    "engine": "core",
    "engine_plugins": "plugins",
    "engine_quant": "plugins_quant",
    "engine_devices": "plugins_devices",
    "engine_parsers": "plugins_parsers",
}
PLUGIN_PACKAGES = tuple(name for name in ROOTS if name != "engine")


def sources(*packages: str) -> Iterator[tuple[str, Path]]:
    """(module name, file) of every Python file of the packages (default all)."""
    for package in packages or ROOTS:
        root = REPOSITORY / ROOTS[package]
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def tree(file: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path, module: str) -> Iterator[tuple[str, int]]:
    """(module or module.name, line) of every import statement in the file, those inside functions too."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
            home = ".".join(filter(None, (base, node.module)))
            yield from ((f"{home}.{alias.name}", node.lineno) for alias in node.names)
