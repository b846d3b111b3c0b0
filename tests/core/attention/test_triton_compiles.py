"""Every Triton kernel compiles for real GPUs, on a machine without one, within the shared memory that they have."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tests.core.attention.attention_cases import Case
from tests.core.attention.triton_sweep import ROOT

#: Bytes that one program may have on compute capability 8.6 and 8.9, the least of the supported GPUs.
SHARED = 99 << 10
KERNELS = {"store_kernel", "decode_kernel", "merge_kernel", "prefill_kernel"}
PLAIN = Case(((1, 1000), (300, 700)), heads=8, kv_heads=2, block_size=16, dtype="bfloat16")
FULL = dataclasses.replace(PLAIN, window=512, soft_cap=30.0, sinks=True)

DEFAULT = [
    (dataclasses.replace(PLAIN, head_dim=128), 90),
    (dataclasses.replace(FULL, head_dim=256), 80),
    (dataclasses.replace(FULL, head_dim=256, dtype="float32", heads=128, kv_heads=1), 80),
    (dataclasses.replace(PLAIN, head_dim=80, dtype="float16", heads=32, kv_heads=1), 90),
]
WIDE = [
    (dataclasses.replace(case, head_dim=head_dim, dtype=dtype, heads=heads, kv_heads=kv_heads), capability)
    for case in (PLAIN, FULL)
    for head_dim in (8, 64, 128, 192, 256)
    for dtype in ("float32", "bfloat16")
    for heads, kv_heads in ((2, 2), (8, 2), (128, 1))
    for capability in (80, 90, 100)
]


def compile_all(cases, cache):
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "core"), str(ROOT))), "TRITON_CACHE_DIR": str(cache)}
    env.pop("TRITON_INTERPRET", None)
    lines = "".join(json.dumps(dataclasses.asdict(case) | {"capability": where}) + "\n" for case, where in cases)
    command = [sys.executable, "-m", "tests.core.attention.compile_kernels"]
    done = subprocess.run(command, cwd=ROOT, env=env, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(built, cases):
    assert len(built) == len(cases) * len(KERNELS)
    assert {line["kernel"] for line in built} == KERNELS
    assert all(line["cubin"] > 0 for line in built)
    assert not [line for line in built if line["shared"] > SHARED]


def test_kernels_compile(tmp_path):
    check(compile_all(DEFAULT, tmp_path), DEFAULT)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kernels_compile_for_every_shape(tmp_path):
    check(compile_all(WIDE, tmp_path), WIDE)
