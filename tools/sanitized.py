"""Runs Python with the compiler's address sanitizer loaded first, as native kernels built with it need: sanitized.py ARGUMENTS."""

from __future__ import annotations

import os
import subprocess
import sys

from engine_devices.native.build import BuildFailed, compiler


def runtime() -> str:
    """Where the compiler keeps the sanitizer's shared library."""
    path = subprocess.run([*compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        raise BuildFailed(f"{compiler()[0]} has no libasan.so; use g++")
    return path


def main() -> None:
    """Does not return."""
    # Python is not instrumented and leaves memory behind at its end, which is no finding.
    environment = {"ASAN_OPTIONS": "detect_leaks=0", **os.environ, "LD_PRELOAD": runtime(), "ENGINE_CPU_SANITIZE": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
