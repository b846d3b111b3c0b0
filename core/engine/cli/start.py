"""What the commands share: reading the line, its help, and the way to a configuration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.args.engine_args import CommandLine, raise_problems, read_command_line, read_own
from engine.args.flag import Flag

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.llm import LLM


class Command:
    """A command that takes a model and the engine's flags beside its own.

    ``http``: whether the flags of the HTTP server mean something to it; without, they are not accepted. ``engine``: whether
    it starts an engine at all; without, it has its own flags alone.
    """

    def __init__(
        self, name: str, usage: str, about: str, own: Sequence[Flag] = (), *, http: bool = False, engine: bool = True
    ) -> None:
        self.name = name
        self.usage = usage
        self.about = about
        self.own = tuple(own)
        self.http = http
        self.engine = engine

    def read(self, argv: Sequence[str], *, needs_model: bool = True) -> CommandLine | None:
        """The command line, or None where help was asked for (and given). Raises every problem at once."""
        engine = self.engine
        line = read_command_line(argv, self.own, http=self.http, needs_model=needs_model) if engine else read_own(argv, self.own)
        if line.help:
            from engine.args.help import render_help

            print(render_help(self.name, self.usage, self.about, self.own, http=self.http, engine=self.engine) + line.more_help)
            return None
        raise_problems(line.problems)
        return line

    def resolve(self, line: CommandLine, *, loads: bool = True) -> EngineConfig:
        """The configuration; its warnings go to the terminal. ``loads``: whether a model will be loaded, which must have room."""
        from engine.args.resolve import resolve

        config = resolve(line.args, loads=loads)
        for warning in config.plan.get("warnings", ()):
            print(f"engine {self.name}: warning: {warning}", file=sys.stderr)
        return config


def show_log() -> None:
    """The engine's own log, and warnings of everything else, on standard error."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s:     %(message)s")
    logging.getLogger("engine").setLevel(logging.INFO)


def open_model(command: Command, line: CommandLine) -> LLM:
    """The model, started; close it, or use it in a ``with`` block."""
    from engine.llm import LLM

    llm = LLM(**{"model": line.args.model, **line.args.given_values()})
    for warning in llm.config.plan.get("warnings", ()):
        print(f"engine {command.name}: warning: {warning}", file=sys.stderr)
    return llm
