"""Says whose fault a failing plugin is: the messages behind the plugin error classes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from engine.errors import BrokenPlugin, ContractViolation, EngineError, MissingDependency, PluginError
from engine.plugin.api import Choice
from engine.plugin.kinds import Kind

_ABSTRACT = "Can't instantiate abstract class"


def label(kind: Kind[Any], name: str) -> str:
    """The plugin as the user chose it: ``--load-format gguf``; ``model LlamaForCausalLM`` where no flag chooses."""
    return f"{kind.flag or kind.name} {name}"


def origin(kind: Kind[Any], choice: Choice) -> str:
    """The same with the distribution that ships it."""
    return f"{label(kind, choice.name)} (from {choice.distribution})"


def import_failure(kind: Kind[Any], choice: Choice, error: ImportError) -> PluginError:
    """An ImportError is a missing dependency, unless the plugin itself or the standard library was asked for."""
    wanted = (error.name or "").partition(".")[0]
    own = choice.module.partition(":")[0].partition(".")[0]
    if not wanted or wanted in (own, "engine") or wanted in sys.stdlib_module_names:
        return BrokenPlugin(
            f"{origin(kind, choice)} is broken: {type(error).__name__}: {error}{_where(error)}. "
            f"This is an error of the plugin, not a missing package.",
            fix=f"report it to the authors of {_project(choice)}, or choose another plugin",
        )
    problem = (
        "which is not installed" if isinstance(error, ModuleNotFoundError) else f"which failed to import ({error})"
    )
    return MissingDependency(
        f"{origin(kind, choice)} needs the package '{wanted}', {problem}.", fix=install_command(choice, wanted)
    )


def install_command(choice: Choice, module: str) -> str:
    """``pip install`` of the extra that carries the plugin's name, or of the module where there is no such extra."""
    from importlib.metadata import PackageNotFoundError, metadata

    project = _project(choice)
    try:
        extras = metadata(project).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    plain = choice.name.lower().replace("_", "-")
    match = next((extra for extra in extras if extra.lower().replace("_", "-") == plain), None)
    return f"pip install '{project}[{match}]'" if match else f"pip install {module}"


def check_extra(kind: Kind[Any], choice: Choice) -> None:
    """Raise MissingDependency where a package of the extra that carries the plugin's name is not installed. Nothing is imported."""
    from importlib.metadata import PackageNotFoundError, distribution, requires

    try:
        stated = requires(_project(choice)) or []
    except PackageNotFoundError:
        return
    for line in stated:
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", line)
        package = re.match(r"[A-Za-z0-9._-]+", line)
        if extra is None or package is None or extra[1].lower().replace("_", "-") != choice.name.lower().replace("_", "-"):
            continue
        try:
            distribution(package[0])
        except PackageNotFoundError as missing:
            raise MissingDependency(
                f"{origin(kind, choice)} needs the package '{package[0]}', which is not installed.",
                fix=install_command(choice, package[0]),
            ) from missing


def failure(kind: Kind[Any], choice: Choice, error: Exception) -> PluginError:
    """Any other exception of a plugin's import or hook."""
    if isinstance(error, TypeError) and str(error).startswith(_ABSTRACT):
        return ContractViolation(
            f"{origin(kind, choice)} does not keep the contract {kind.contract.__name__}: {error}{_where(error)}.",
            fix=f"implement the missing methods of engine.plugin.{kind.contract.__name__}",
        )
    return BrokenPlugin(
        f"{origin(kind, choice)} failed: {type(error).__name__}: {error}{_where(error)}.",
        fix=f"report it to the authors of {_project(choice)}, or choose another plugin",
    )


def violation(kind: Kind[Any], choice: Choice, answer: object) -> ContractViolation:
    """The hook returned something that is not of the kind's contract; names type and missing methods."""
    contract = kind.contract
    if isinstance(answer, type):
        what = f"the class {answer.__name__} instead of an object of it"
    elif answer is None:
        what = "None"
    else:
        what = f"an object of type {type(answer).__module__}.{type(answer).__qualname__}"
    missing = sorted(name for name in getattr(contract, "__abstractmethods__", ()) if not hasattr(answer, name))
    lacks = f"; it lacks {', '.join(missing)}" if missing and answer is not None else ""
    return ContractViolation(
        f"{origin(kind, choice)}: {kind.hook}() returned {what}, which is not a {contract.__name__}{lacks}.",
        fix=f"return a subclass of engine.plugin.{contract.__name__}",
    )


def _project(choice: Choice) -> str:
    return choice.distribution.rpartition(" ")[0]


def _where(error: BaseException) -> str:
    """The innermost place in the plugin's code, for the plugin's author."""
    machinery = ("importlib", "stevedore", "pluggy")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in machinery)
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def unmarked(module: ModuleType, hook: str) -> bool:
    """Whether the module has the hook function but forgot ``@hookimpl``."""
    return callable(getattr(module, hook, None))


@contextmanager
def blamed(kind: Kind[Any], choice: Choice) -> Iterator[None]:
    """Whatever a plugin's code raises inside becomes the plugin error that names it; the engine's own errors pass."""
    try:
        yield
    except EngineError:
        raise
    except ImportError as error:
        raise import_failure(kind, choice, error) from error
    except Exception as error:
        raise failure(kind, choice, error) from error
