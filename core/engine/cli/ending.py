"""How a command ends: exit status, and the cause with one suggested change as the last line."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

from engine.errors import EngineError

#: Set to 1: failures come with their traceback.
TRACEBACK = "ENGINE_TRACEBACK"
_INTERRUPTED = 130


def guarded(command: str, argv: list[str]) -> int:
    """Run ``engine.cli.<command>.run(argv)``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name or a text that the terminal's encoding lacks is shown by its code, rather than being the end.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = import_module(f"engine.cli.{command.replace('-', '_')}").run(argv)
        sys.stdout.flush()
        return status
    except EngineError as error:
        _show_traceback()
        report_failure(command, error)
        return error.status
    except KeyboardInterrupt:
        print(f"engine {command}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # the reader of a pipe has gone; what is left of the output must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001
        # the outermost boundary: a fault of the engine itself still ends in one line that says so
        _show_traceback()
        cause = " ".join(str(error).split()) or "no message"
        print(
            f"engine {command}: this is a fault in the engine: {type(error).__name__}: {cause}. Try: {TRACEBACK}=1 to see where",
            file=sys.stderr,
        )
        return 1


def report_failure(command: str, error: EngineError) -> None:
    """Every line of the cause, the last one with the suggested change."""
    for line in error.line().splitlines():
        print(f"engine {command}: {line}", file=sys.stderr)


def _show_traceback() -> None:
    if os.environ.get(TRACEBACK) == "1":
        import traceback

        traceback.print_exc()
