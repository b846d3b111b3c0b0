"""What importing a module does to a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from typing import Any

#: Packages that a plugin module must not import before it is asked: seconds of start, hundreds of megabytes.
HEAVY = ("torch", "transformers", "triton", "numpy", "jax", "tensorflow", "ray", "pandas", "scipy")
#: As it was before any plugin under test was imported.
_ENVIRONMENT = dict(os.environ)

_SCRIPT = """
import json, os, sys, threading, time, signal, io, contextlib, warnings, logging
import importlib
import engine.plugin
from engine.plugin import hookimpl

def state():
    return {
        "the environment": dict(os.environ), "the working directory": os.getcwd(), "threads": threading.active_count(),
        "signal handlers": {str(s): str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)},
        "the root logger": (len(logging.getLogger().handlers), logging.getLogger().level),
        "files of the working directory": sorted(os.listdir(".")),
    }

before, heavy = state(), set(sys.modules)
printed, start = io.StringIO(), time.process_time()
with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    found = importlib.import_module(sys.argv[1])
seconds, after = time.process_time() - start, state()
names = sys.argv[2].split(",")
print(json.dumps({
    "heavy": [n for n in names if n in sys.modules and n not in heavy],
    "changed": [name for name in before if before[name] != after[name]],
    "printed": printed.getvalue()[:300], "seconds": seconds, "api": getattr(found, "ENGINE_API", None),
}))
"""


@lru_cache(maxsize=256)
def _probe(module: str, path: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, module, ",".join(HEAVY)],
        capture_output=True, text=True, check=False, timeout=120, env={**_ENVIRONMENT, "PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{module} cannot be imported in a fresh process:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def probe_import(target: str) -> dict[str, Any]:
    """``heavy``: heavy packages that it imported; ``changed``: parts of the process that it changed; ``printed``: what it wrote;
    ``seconds`` of processor time; ``api``: its ``ENGINE_API``.

    Raises AssertionError where it cannot be imported; its last line is the cause."""
    answer: dict[str, Any] = json.loads(_probe(target.partition(":")[0], os.pathsep.join(filter(None, sys.path))))
    return answer


_CALL = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
getattr(module, sys.argv[2])()
print(json.dumps([name for name in sys.modules if "." not in name]))
"""


def probe_call(target: str, function: str) -> list[str]:
    """The top-level packages that a fresh process holds after calling a hook without arguments."""
    done = subprocess.run(
        [sys.executable, "-c", _CALL, target.partition(":")[0], function],
        capture_output=True, text=True, check=False, timeout=120,
        env={**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{function}() of {target} raised in a fresh process:\n{done.stderr[-2000:]}")
    names: list[str] = json.loads(done.stdout.strip().splitlines()[-1])
    return names
