"""The front end imports no torch."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_import():
    script = (
        "import sys; import engine.server.app, engine.server.run, engine.render.chat, engine.assemble.choice, engine.metrics; "
        "print([name for name in ('torch', 'transformers', 'triton') if name in sys.modules])"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(path)})
    assert done.stdout.strip() == "[]"
