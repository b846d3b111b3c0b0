"""Wall time of the quick commands as multiples of a bare ``python -c pass`` in the same environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

COMMANDS = {
    "engine --version": 4.0,
    "engine serve --help": 8.0,
    "engine serve demo --lod-format auto": 8.0,
    "engine serve demo --load-format safetensor": 8.0,
    "engine sevre": 8.0,
}


def fastest(argv: list[str], repetitions: int = 15) -> float:
    """Seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(repetitions):
        started = time.perf_counter()
        subprocess.run(argv, capture_output=True, check=False)
        best = min(best, time.perf_counter() - started)
    return best


def main() -> int:
    """Print one line per command; the status is 1 where a ratio is above its limit."""
    program = shutil.which("engine", path=str(sys.prefix) + "/bin") or "engine"
    bare = fastest([sys.executable, "-c", "pass"])
    print(f"{'python -c pass':<46} {bare * 1000:7.1f} ms")
    slow = False
    for command, limit in COMMANDS.items():
        seconds = fastest([program, *command.split()[1:]])
        slow |= seconds / bare > limit
        print(f"{command:<46} {seconds * 1000:7.1f} ms   {seconds / bare:5.2f} x   (limit {limit:g})")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
