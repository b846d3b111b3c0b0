"""Collectives between two processes: the right sums, and the same bits on every rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.errors import ConfigError
from engine.worker.parallel import SingleProcess, join

SCRIPT = """
import sys, torch
from engine.worker.parallel import join
rank, rendezvous, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
group = join(rank, 2, 1, rendezvous, "gloo", torch.device("cpu"))
results = {}
for name in ("float32", "bfloat16", "float16"):
    torch.manual_seed(rank)
    x = torch.randn(37, 6).to(getattr(torch, name))
    results[name] = (x.clone(), group.all_reduce(x[:, ::2]), group.all_gather(x), group.all_gather(x, dim=0))
order = []
with group.turn(1):
    order.append(rank)
with group.turn(None):
    order.append(rank)
torch.save(results, out)
group.close()
group.close()
"""


def test_two_ranks_agree_bit_by_bit(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    outs = [str(tmp_path / f"{rank}.pt") for rank in range(2)]
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), str(tmp_path), outs[rank]], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    first, second = (torch.load(out) for out in outs)
    for name in ("float32", "bfloat16", "float16"):
        a, b = first[name][0], second[name][0]
        assert torch.equal(first[name][1], second[name][1])
        assert torch.allclose(first[name][1].float(), (a + b)[:, ::2].float(), atol=1e-6)
        for gathered in (first[name], second[name]):
            assert torch.equal(gathered[2], torch.cat((a, b), 1))
            assert torch.equal(gathered[3], torch.cat((a, b), 0))


def test_one_process_needs_no_group() -> None:
    group = join(0, 1, 1, "", "gloo", torch.device("cpu"))
    assert isinstance(group, SingleProcess)
    x = torch.ones(2)
    assert group.all_reduce(x) is x
    assert group.all_gather(x) is x


def test_pipeline_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match="--pipeline-parallel-size 2"):
        join(0, 1, 2, "", "gloo", torch.device("cpu"))
