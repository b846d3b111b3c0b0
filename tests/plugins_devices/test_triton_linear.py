"""The Triton kernels of linear layers: interpreted on every machine, compiled for GPUs without one, run where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.layers.packed_quantized import AdditiveCodebooks, GroupedInteger

ROOT = Path(__file__).parents[2]
#: Bytes that one program may have on compute capability 8.6 and 8.9, the least of the supported GPUs.
SHARED = 99 << 10
#: Relative to the exact product; a table of codes is rounded to bfloat16 beside bfloat16 activations on a GPU.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
KINDS = (
    ("int4", 128), ("int4 shift", 32), ("int4", 16), ("int8", 0), ("int8 shift", 64), ("float8 tensor", 0), ("float8 channel", 0),
    ("float8 block", 128), ("float8 e5m2", 0), ("codes4", 64), ("codes4 outer", 16), ("codes8", 32),
)  # fmt: skip


def case(kind, group, outputs=65, inputs=200, rows=1, dtype="bfloat16"):
    return {"kind": kind, "group": group, "outputs": outputs, "inputs": inputs, "rows": rows, "dtype": dtype}


SWEEP = [case(kind, group) for kind, group in KINDS] + [
    case("int4", 64, rows=33, outputs=33, inputs=130), case("codes4 outer", 16, rows=33, outputs=129, inputs=70),
    case("float8 block", 128, rows=33, outputs=130, inputs=257, dtype="float32"), case("int8", 0, rows=17, outputs=3, inputs=33),
    case("int4 shift", 32, rows=3, inputs=1030, dtype="float32"), case("codes4", 64, rows=5, outputs=7, inputs=13, dtype="float32"),
    case("int8 shift", 64, rows=33, dtype="float16"), case("float8 e5m2", 0, rows=2, inputs=777, dtype="float32"),
    case("int4", 48, rows=2, inputs=100, dtype="float32"), case("codes8", 32, rows=20, inputs=64, dtype="float32"),
]  # fmt: skip
COMPILED = [
    case(kind, group, outputs=4096, inputs=4096, rows=rows, dtype=dtype) | {"capability": capability}
    for kind, group, rows, dtype, capability in (
        ("int4 shift", 128, 1, "bfloat16", 80), ("int4", 32, 512, "bfloat16", 90), ("int8", 0, 1, "float16", 90),
        ("float8 block", 128, 512, "bfloat16", 80), ("float8 channel", 0, 8, "bfloat16", 90), ("codes4", 64, 1, "bfloat16", 80),
        ("codes4 outer", 16, 512, "bfloat16", 90), ("int4 shift", 128, 512, "float32", 80), ("int8", 0, 4, "float32", 80),
        ("float8 e5m2", 0, 512, "float16", 80),
    )
]  # fmt: skip


def spawn(what, cases, **changes):
    path = os.pathsep.join(str(ROOT / part) for part in ("core", "plugins_devices", "plugins", "."))
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"PYTHONPATH": path} | changes
    lines = "".join(json.dumps(each) + "\n" for each in cases)
    command = [sys.executable, "-m", "tests.plugins_devices.triton_linear", what]
    done = subprocess.run(command, cwd=ROOT, env=env, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def interpreted():
    return spawn("cpu", SWEEP, TRITON_INTERPRET="1")


@pytest.mark.parametrize("index", range(len(SWEEP)), ids=lambda i: " ".join(map(str, SWEEP[i].values())))
def test_interpreted_equals_the_product_of_the_dequantized_weight(interpreted, index):
    result, wanted = interpreted[index], SWEEP[index]
    assert result["error"] <= TOLERANCE[wanted["dtype"]]
    assert result["dtype"] == f"torch.{wanted['dtype']}"
    assert result["alone"] or wanted["rows"] > 16, "a row depends on its neighbours"


def test_kernels_compile_within_the_shared_memory_of_gpus(tmp_path):
    built = spawn("compile", COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert len(built) == len(COMPILED)
    for wanted, launches in zip(COMPILED, built, strict=True):
        names = [launch["kernel"] for launch in launches]
        assert names == ["linear_kernel", "sum_kernel"][: 2 if wanted["rows"] <= 16 else 1]
        assert all(launch["cubin"] > 0 and launch["shared"] <= SHARED for launch in launches), (wanted, launches)


def test_what_the_kernels_do_not_take_is_left_to_torch():
    from engine_devices._cuda_linear import linear_kernel

    weight = torch.randn(8, 64)
    assert linear_kernel(GroupedInteger.quantize(weight, bits=3, group=32)) is None
    assert linear_kernel(GroupedInteger.quantize(weight, bits=4, group=24)) is None
    codes = torch.zeros(8, 8, 1, dtype=torch.uint8)
    assert linear_kernel(AdditiveCodebooks(codes, torch.randn(1, 2, 1, 8), torch.ones(8))) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_equals_the_product_of_the_dequantized_weight():
    for wanted, result in zip(SWEEP, spawn("cuda", SWEEP), strict=True):
        assert result["error"] <= TOLERANCE[wanted["dtype"]], wanted
        assert result["alone"] or wanted["rows"] > 16, wanted
