"""From an imported plugin module to a working object: API version, hook signature, call, contract."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, TypeVar

import pluggy

from engine.errors import BadSignature, ContractViolation, IncompatiblePlugin
from engine.plugin import spec
from engine.plugin.api import API_VERSION, PROJECT, Choice, Use
from engine.plugin.blame import blamed, origin, unmarked, violation
from engine.plugin.files import import_file
from engine.plugin.kinds import Kind
from engine.plugin.options import fill_options, takes_raw_options
from engine.plugin.trace import traced

T = TypeVar("T")


def load(choice: Choice, kind: Kind[T], **args: Any) -> T:
    """For worker processes: import exactly ``choice.module`` and create its object. No discovery, no stevedore.

    ``args`` are those of the kind's hook, all of them; ``options`` may be a plain dict (see :meth:`PluginHost.create`).
    Raises the :class:`engine.errors.PluginError` subclasses.
    """
    answer = activate(kind, choice, import_plugin(kind, choice), args)
    if isinstance(answer, Use):
        raise ContractViolation(
            f"{origin(kind, choice)} refers to {answer.name!r} here, after it was chosen as the final plugin.",
            fix="let the hook decide from its arguments alone",
        )
    return answer


def import_plugin(kind: Kind[Any], choice: Choice) -> Any:
    """The plugin's module (or the object in it that a ``module:object`` target names)."""
    name, _, attribute = choice.module.partition(":")
    with blamed(kind, choice), traced("import", kind.name, choice.name, choice.module, choice.distribution):
        if name.endswith(".py"):
            return import_file(choice.module)
        plugin: Any = import_module(name)
        for part in filter(None, attribute.split(".")):
            plugin = getattr(plugin, part)
    return plugin


def activate(kind: Kind[T], choice: Choice, plugin: Any, args: dict[str, Any]) -> T | Use:
    """Call the kind's hook of an imported plugin and check what it returns against the contract."""
    if not takes_raw_options(kind.hook) and isinstance(args.get("options"), dict):
        args = args | {"options": fill_options(kind, choice, plugin, args["options"])}
    answer = call_hook(kind, choice, plugin, kind.hook, args)
    if isinstance(answer, kind.contract | Use):
        return answer
    raise violation(kind, choice, answer)


def call_hook(kind: Kind[Any], choice: Choice, plugin: Any, hook: str, args: dict[str, Any]) -> Any:
    """Call one hook of one plugin, alone, with every argument of the specification; its answer is not checked."""
    check_arguments(hook, args)
    hooks = registered(kind, choice, plugin).hook
    caller = getattr(hooks, hook)
    if not caller.get_hookimpls():
        marker = " (it is there, but without @hookimpl)" if unmarked(plugin, hook) else ""
        raise BadSignature(
            f"{origin(kind, choice)} does not implement the hook {hook}{marker}.",
            fix=f"define {hook}() in {choice.module} and mark it @hookimpl",
        )
    with blamed(kind, choice), traced(hook, kind.name, choice.name, choice.module, choice.distribution):
        return caller(**args)


def check_arguments(hook: str, args: dict[str, Any]) -> None:
    """The engine's own side of the specification: a hook is called with all its arguments and no others."""
    expected = set(inspect.signature(getattr(spec, hook)).parameters)
    if expected != set(args):
        raise TypeError(f"{hook} is called with {sorted(expected)}, got {sorted(args)}")


def registered(kind: Kind[Any], choice: Choice, plugin: Any) -> pluggy.PluginManager:
    """A plugin manager that knows the specifications and this plugin alone, so that no other one can answer."""
    speaks = getattr(plugin, "ENGINE_API", None)
    if speaks != API_VERSION:
        written = f"is written for plugin API {speaks}" if speaks is not None else "does not say ENGINE_API"
        raise IncompatiblePlugin(
            f"{origin(kind, choice)} {written}; this engine speaks {API_VERSION}.",
            fix=f"install a version of {choice.distribution.rpartition(' ')[0]} for plugin API {API_VERSION}",
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(spec)
    try:
        manager.register(plugin, name=choice.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        detail = " ".join(str(error).split())
        raise BadSignature(
            f"{origin(kind, choice)} does not fit the hook specification: {detail}.",
            fix="compare its hooks with engine.plugin.spec; a hook may take fewer arguments, not others",
        ) from error
    return manager
