"""The plugin host: names to installed plugins, plugins to working objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from engine.errors import ContractViolation, PluginConflict, UnknownPlugin
from engine.plugin.activate import activate, call_hook, import_plugin, load
from engine.plugin.api import Choice, Use
from engine.plugin.blame import blamed, label, origin
from engine.plugin.discovery import Entry, scan
from engine.plugin.kinds import Kind
from engine.plugin.options import fill_options
from engine.plugin.trace import traced

__all__ = ["Created", "Entry", "PluginHost", "load"]

T = TypeVar("T")


@dataclass(frozen=True)
class Created(Generic[T]):
    """A plugin's object, and the choice it came from after every ``Use`` was followed."""

    plugin: T
    choice: Choice


class PluginHost:
    """Resolves and creates plugins. Stateless but for the list of installed plugins, which is read once.

    ``entries`` replaces discovery (tests).
    """

    def __init__(self, entries: Iterable[Entry] | None = None) -> None:
        self._given = None if entries is None else list(entries)

    @cached_property
    def _entries(self) -> list[Entry]:
        return scan() if self._given is None else self._given

    def entries(self, kind: Kind[Any] | str) -> list[Entry]:
        """The installed plugins of a kind, by name; nothing is imported."""
        wanted = kind if isinstance(kind, str) else kind.name
        return sorted((entry for entry in self._entries if entry.kind == wanted), key=lambda entry: entry.name)

    def add_file(self, kind: Kind[Any], path: str, flag: str) -> None:
        """Make the plugin module in a Python file one of the installed (see :func:`engine.plugin.files.file_plugin`)."""
        from engine.plugin.files import file_plugin

        self._entries.append(file_plugin(kind, path, flag))

    def resolve(self, kind: Kind[Any], name: str) -> Choice:
        """The one plugin of that name; nothing is imported.

        Raises :class:`UnknownPlugin` (with the nearest names) or :class:`PluginConflict` (with both distributions).
        """
        entries = self.entries(kind)
        found = [entry for entry in entries if entry.name == name]
        if not found:
            raise _unknown(kind, name, sorted({entry.name for entry in entries}), any_at_all=bool(self._entries))
        if len(found) > 1:
            offers = "; ".join(f"{entry.distribution}: {entry.module}" for entry in found)
            last = found[-1].distribution.rpartition(" ")[0]
            raise PluginConflict(
                f"{label(kind, name)} is offered by more than one distribution: {offers}.", fix=f"pip uninstall {last}"
            )
        entry = found[0]
        return Choice(kind=kind.name, name=name, module=entry.module, distribution=entry.distribution, asked=name)

    def create(self, kind: Kind[T], choice: Choice | str, /, **args: Any) -> Created[T]:
        """Create the chosen plugin's object, following ``Use`` answers.

        ``args`` are all arguments of the kind's hook. ``options`` may be a plain dict: the plugin that is finally
        taken receives it as its own typed ``Options``. Raises the :class:`engine.errors.PluginError` subclasses.
        """
        current = self.resolve(kind, choice) if isinstance(choice, str) else choice
        names = [current.name]
        while True:
            answer = activate(kind, current, self._import(kind, current), args)
            if not isinstance(answer, Use):
                return Created(answer, current)
            if answer.name in names:
                way = " → ".join([*names, answer.name])
                raise ContractViolation(
                    f"{origin(kind, current)} goes round in circles: {way}.", fix="choose one by name"
                )
            current = self._follow(kind, current, answer)
            names.append(current.name)

    def options(self, kind: Kind[Any], choice: Choice | str, values: dict[str, Any]) -> Any:
        """The plugin's typed ``Options`` from a JSON object, None where it has none.

        Raises :class:`engine.errors.ConfigError` naming the option and what is known.
        """
        chosen = self.resolve(kind, choice) if isinstance(choice, str) else choice
        return fill_options(kind, chosen, self._import(kind, chosen), values)

    def call(self, kind: Kind[Any], choice: Choice | str, hook: str, /, **args: Any) -> Any:
        """Call a secondary hook of one plugin (``engine_probe_device``); the answer is not checked."""
        chosen = self.resolve(kind, choice) if isinstance(choice, str) else choice
        return call_hook(kind, chosen, self._import(kind, chosen), hook, args)

    def module(self, kind: Kind[Any], choice: Choice | str) -> Any:
        """The plugin's imported module, for its docstring and ``Options``."""
        return self._import(kind, self.resolve(kind, choice) if isinstance(choice, str) else choice)

    def _follow(self, kind: Kind[Any], current: Choice, answer: Use) -> Choice:
        try:
            target = self.resolve(kind, answer.name)
        except UnknownPlugin as error:
            raise UnknownPlugin(f"{origin(kind, current)} refers to another plugin. {error}", fix=error.fix) from error
        return Choice(
            kind=target.kind, name=target.name, module=target.module, distribution=target.distribution,
            asked=current.asked, reason="; ".join(filter(None, (current.reason, answer.reason))),
        )  # fmt: skip

    def _import(self, kind: Kind[Any], choice: Choice) -> Any:
        """Import the one chosen module through stevedore's driver."""
        from engine.plugin.driver import import_driver

        if choice.module.endswith(".py"):
            return import_plugin(kind, choice)
        with blamed(kind, choice), traced("import", kind.name, choice.name, choice.module, choice.distribution):
            return import_driver(kind.group, choice.name, choice.module)


def _unknown(kind: Kind[Any], name: str, installed: list[str], *, any_at_all: bool) -> UnknownPlugin:
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), installed, n=3, cutoff=0.6)
    asked = label(kind, name)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    known = ", ".join(installed) or "none of this kind"
    if not any_at_all:
        return UnknownPlugin(f"{asked}: no plugin is installed at all, not even the engine's own.", fix="pip install .")
    fix = label(kind, near[0]) if near else f"engine plugins list --kind {kind.name}"
    return UnknownPlugin(f"{asked}: no such plugin.{hint} Installed: {known}.", fix=fix)
