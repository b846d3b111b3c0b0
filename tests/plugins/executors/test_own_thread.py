"""A worker's thread that nobody stops must not take the interpreter's end for an occasion to abort."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time, torch
sys.path[:0] = {path!r}
from engine_plugins.executors._own_thread import OwnThread
from engine_plugins.executors._pending import Pending
torch.set_num_threads(1)
numbers = torch.randn(200, 200)
def work():
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        (numbers @ numbers).sum()
thread = OwnThread(Pending())
for _ in range(50):
    thread.submit(work)
time.sleep(0.2)
"""


def test_the_interpreter_ends_in_order_while_a_job_runs() -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(path=sys.path)], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
