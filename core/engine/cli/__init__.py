"""The command ``engine``: finds the subcommand, runs it, and turns failures into one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": "serve a model over the OpenAI API",
    "generate": "continue prompts, offline",
    "chat": "talk to a model in the terminal",
    "bench": "measure a model, a server, and the machine under them",
    "plan": "show what would run, from headers alone",
    "quantize": "write a smaller checkpoint of a model, and say what it lost",
    "save-sharded": "write each rank's finished weights, for quick starts",
    "plugins": "list, show, write, test and examine plugins",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``engine ARGV``; returns the exit status: 0, or 2 usage, 3 plugin, 4 model file, 5 memory, 6 port, 1 anything else."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        from engine import __version__

        print(f"engine {__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _unknown(words[0])
    from engine.cli.ending import guarded

    return guarded(words[0], words[1:])


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: engine COMMAND [MODEL] [flags]",
            "",
            *lines,
            "",
            "engine COMMAND --help lists the flags; engine --version the version.",
        ]
    )


def _unknown(word: str) -> int:
    from engine.args.spelling import nearest

    near = nearest(word, COMMANDS)
    hint = f"Did you mean {near}? Try: engine {near}" if near else "Try: engine --help"
    print(f"engine: {word}: no such command. {hint}", file=sys.stderr)
    return 2
