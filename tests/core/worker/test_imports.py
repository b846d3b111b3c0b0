"""A worker of a native model on the CPU imports neither transformers nor triton: they cost seconds and hundreds of MB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.core.worker.harness import make_config

SCRIPT = """
import sys, msgspec
from engine.config import EngineConfig
from engine.plugin.step import NewSequence, Step, Work
from engine.plugin.request import SamplingParams
from engine.worker.worker import LocalWorker
config = msgspec.msgpack.decode(open(sys.argv[1], "rb").read(), type=EngineConfig)
worker = LocalWorker(config, 0, "")
worker.load()
worker.budget()
worker.allocate(4, 0)
new = NewSequence(seq=1, token_ids=[1, 2], num_prompt=2, params=SamplingParams(top_p=0.9, seed=1))
result = worker.run(Step(index=0, new=[new], work=[Work(seq=1, start=0, count=2, blocks=[0])]))
assert len(result.results[0].token_ids) == 1
print(sorted({name.partition(".")[0] for name in sys.modules} & {"transformers", "triton", "stevedore", "sympy"}))
"""


def test_heavy_libraries_stay_out(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(msgspec.msgpack.encode(make_config(checkpoint)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config")]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.strip() == "[]"
