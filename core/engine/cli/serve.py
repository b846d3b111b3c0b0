"""``engine serve``: the HTTP server."""

from __future__ import annotations

from engine.cli.start import Command, show_log

COMMAND = Command("serve", "engine serve MODEL [flags]", "Serve a model over the OpenAI API.", http=True)


def run(argv: list[str]) -> int:
    """Serve until told to stop."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    show_log()
    config = COMMAND.resolve(line)
    from engine.server.run import run as serve

    return serve(config) or 0
