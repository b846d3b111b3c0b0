"""The cases that the Triton attention is compared over, and how they are run in a process of their own."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.core.attention.attention_cases import Case

ROOT = Path(__file__).parents[3]
DECODE = ((1, 1), (1, 17), (1, 40), (1, 0), (1, 33))
PREFILL = ((3, 3), (9, 30), (2, 65))
MIXED = ((1, 20), (5, 5), (1, 1), (7, 25))
LONG = ((1, 512), (1, 513), (1, 1100), (1, 3))

#: One feature at a time, then together; every case with bfloat16 inputs unless it says otherwise.
DEFAULT: dict[str, Case] = {
    name: dataclasses.replace(Case(**{"work": MIXED, "head_dim": 64, "dtype": "bfloat16"} | fields), seed=index)
    for index, (name, fields) in enumerate(
        {
            "decode": {"work": DECODE}, "prefill": {"work": PREFILL}, "mixed": {}, "empty-step": {"work": ()},
            "padding": {"pad_rows": 3}, "splits": {"work": LONG, "heads": 1, "kv_heads": 1},
            "splits-window": {"work": LONG, "heads": 1, "kv_heads": 1, "window": 600},
            "splits-sinks": {"work": LONG, "heads": 2, "kv_heads": 1, "sinks": True},
            "blocks-16": {"block_size": 16}, "blocks-32": {"block_size": 32}, "blocks-128": {"block_size": 128},
            "gqa-4": {"heads": 4, "kv_heads": 1}, "gqa-8": {"heads": 16, "kv_heads": 2, "work": ((1, 9), (4, 12))},
            "gqa-3": {"heads": 6, "kv_heads": 2}, "gqa-48": {"heads": 48, "kv_heads": 1, "work": ((1, 9), (4, 12))},
            "head-80": {"head_dim": 80}, "head-128": {"head_dim": 128, "work": ((1, 20), (5, 9))},
            "head-256": {"head_dim": 256, "work": ((1, 20), (5, 9))}, "head-8": {"head_dim": 8},
            "window-1": {"window": 1}, "window-5": {"window": 5}, "window-24": {"window": 24},
            "prefill-window": {"work": ((70, 80), (40, 40)), "window": 7, "heads": 1, "kv_heads": 1},
            "prefill-tiles": {"work": ((150, 170),), "heads": 1, "kv_heads": 1},
            "soft-cap": {"soft_cap": 2.0}, "sinks": {"sinks": True}, "float16": {"dtype": "float16"},
            "float32": {"dtype": "float32"},
            "e4m3": {"cache": "float8_e4m3fn", "k_scale": 0.25, "v_scale": 2.0, "dtype": "float32"},
            "e5m2": {"cache": "float8_e5m2", "sinks": True, "pad_rows": 2}, "e4m3-unscaled": {"cache": "float8_e4m3fn", "soft_cap": 3.0},
            "all": {"heads": 8, "kv_heads": 2, "head_dim": 80, "block_size": 16, "window": 12, "soft_cap": 3.0,
                    "sinks": True, "pad_rows": 2},
            "all-float32": {"heads": 4, "kv_heads": 1, "head_dim": 20, "block_size": 32, "window": 9, "soft_cap": 1.0,
                            "sinks": True, "dtype": "float32"},
        }.items()
    )
}  # fmt: skip


def full() -> dict[str, Case]:
    """Every combination of block size, GQA ratio, window and head dimension, on each kind of batch."""
    product = itertools.product(
        (DECODE, PREFILL, MIXED, LONG), (8, 16, 32), (1, 4, 8), (None, 12, 600), (64, 80, 128), (False, True)
    )
    return {
        f"{index}": Case(
            work, heads=ratio, kv_heads=1, head_dim=head_dim, block_size=block, window=window, dtype="bfloat16",
            soft_cap=5.0 if extras else None, sinks=extras, seed=index,
        )
        for index, (work, block, ratio, window, head_dim, extras) in enumerate(product)
    }  # fmt: skip


def run(cases: dict[str, Case], device: str) -> dict[str, dict]:
    """Results by case name; see :mod:`tests.core.attention.run_triton` for what they hold."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "core"), str(ROOT))), "OMP_NUM_THREADS": "1"}
    env.pop("TRITON_INTERPRET", None)
    if device == "cpu":
        env["TRITON_INTERPRET"] = "1"
    lines = "".join(json.dumps(dataclasses.asdict(case)) + "\n" for case in cases.values())
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.attention.run_triton", device],
        cwd=ROOT, env=env, input=lines, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(zip(cases, map(json.loads, done.stdout.splitlines()), strict=True))
