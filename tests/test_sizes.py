"""Small files and small functions: one idea each. Exceptions stand here with their reason."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.sources import PLUGIN_PACKAGES, REPOSITORY, sources, tree

FUNCTION = 50
#: A Triton kernel is one function by nature.
KERNEL = 100
FILE = 300
#: Kernels, and files that hold one model architecture.
LARGE_FILE = 400
PLUGIN_MODULE = 150
_LARGE = ("core/engine/attention/", "plugins/engine_plugins/models/", "plugins_devices/")
#: File, or file:function → (lines allowed, reason).
EXCEPTIONS: dict[str, tuple[int, str]] = {}


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_files_are_small():
    long = []
    for module, file in sources():
        name = file.relative_to(REPOSITORY).as_posix()
        limit = LARGE_FILE if name.startswith(_LARGE) else FILE
        if module.startswith(PLUGIN_PACKAGES) and _is_plugin(file) and not name.startswith(_LARGE):
            limit = PLUGIN_MODULE
        limit = EXCEPTIONS.get(name, (limit, ""))[0]
        if _lines(file) > limit:
            long.append(f"{name}: {_lines(file)} lines, {limit} allowed")
    assert not long, "\n".join(long)


def test_functions_are_small():
    long = []
    for _, file in sources():
        name = file.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                kernel = any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
                limit = EXCEPTIONS.get(f"{name}:{node.name}", (KERNEL if kernel else FUNCTION, ""))[0]
                if length > limit:
                    long.append(f"{name}:{node.lineno}: {node.name} has {length} lines, {limit} allowed")
    assert not long, "\n".join(long)


def test_every_module_and_public_name_is_documented():
    bare = []
    for _, file in sources():
        name = file.relative_to(REPOSITORY).as_posix()
        module = tree(file)
        if not module.body:
            continue
        if not ast.get_docstring(module):
            bare.append(f"{name}: the module")
        for node in module.body:
            if (
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not _exempt(node)
                and not ast.get_docstring(node)
            ):
                bare.append(f"{name}:{node.lineno}: {node.name}")
    assert not bare, "\n".join(bare)


def test_exceptions_are_still_needed():
    for name, (limit, reason) in EXCEPTIONS.items():
        file = REPOSITORY / name.partition(":")[0]
        assert file.exists() and reason and limit > 0, name


def _is_plugin(file: Path) -> bool:
    return any(
        isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "ENGINE_API" for target in node.targets)
        for node in tree(file).body
    )


def _exempt(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Private names, hook implementations and ``Options``, which their specification documents, and the one suite of a module of tests,
    which the module's docstring describes."""
    return node.name.startswith(("_", "engine_", "Test")) or node.name == "Options"
