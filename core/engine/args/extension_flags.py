"""Flags that extensions add: read beside the engine's own, their values are the extension's options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.args.flag import Problem
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.plugin.discovery import Entry


class ExtensionFlags:
    """What ``engine_add_arguments`` of the enabled extensions says. Only they are imported, and only where some are enabled."""

    def __init__(self, names: Sequence[str], entries: Sequence[Entry] | None) -> None:
        self.problems: list[Problem] = []
        self._parsers: dict[str, _Parser] = {}
        for name in names:
            try:
                parser = _parser(name, entries)
            except EngineError as error:
                self.problems.append(Problem(str(error), error.fix, error.status))
                continue
            if parser is not None:
                self._parsers[name] = parser

    def take(self, argv: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
        """The line without their flags, and the given values by extension and option."""
        rest, found = list(argv), dict[str, dict[str, Any]]()
        for name, parser in self._parsers.items():
            try:
                given, rest = parser.parse_known_args(rest)
            except argparse.ArgumentError as error:
                self.problems.append(Problem(f"{error.argument_name}: {error.message}.", f"engine serve --extensions {name} --help"))
                continue
            if vars(given):
                found[name] = vars(given)
        return rest, found

    def help(self) -> str:
        """Their part of ``--help``."""
        return "".join("\n\n" + parser.format_help().partition("\n\n")[2].rstrip() for parser in self._parsers.values())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise argparse.ArgumentError(None, message)


def _parser(name: str, entries: Sequence[Entry] | None) -> _Parser | None:
    """The extension's own flags; None where it adds none. Raises PluginError."""
    from engine.errors import ContractViolation
    from engine.plugin.activate import registered
    from engine.plugin.blame import blamed, origin
    from engine.plugin.host import PluginHost
    from engine.plugin.kinds import EXTENSION

    host = PluginHost(entries)
    choice = host.resolve(EXTENSION, name)
    hook = registered(EXTENSION, choice, host.module(EXTENSION, choice)).hook.engine_add_arguments
    if not hook.get_hookimpls():
        return None
    # What is not given is left to the defaults of the extension's Options.
    parser = _Parser(usage="\n", add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group(f"Extension {name} ({choice.distribution})")
    with blamed(EXTENSION, choice):
        hook(parser=group)
    start = f"--{name.replace('_', '-')}-"
    for action in group._group_actions:
        wrong = [flag for flag in action.option_strings or [action.dest] if not flag.startswith(start)]
        if wrong:
            raise ContractViolation(f"{origin(EXTENSION, choice)} adds {wrong[0]}; its flags begin with {start}.", fix=f"{start}NAME")
        action.dest = action.option_strings[0].removeprefix(start).replace("-", "_")
        action.default = argparse.SUPPRESS
    return parser
