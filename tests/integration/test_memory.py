"""What ``engine plan`` says the server will occupy is what ``engine serve`` occupies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from engine.checkpoint import BUNDLED
from tests.integration.serving import REPOSITORY, ROOTS, RunningServer, serve

TOLERANCE = 0.15
CPU = ("--device", "cpu")
SHORT = ("--max-model-len", "1024")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A float32 checkpoint of 58 million random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    place = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / "demo" / name, place / name)
    return str(place)


def planned(*words: str) -> int:
    """``expected_rss`` of the plan."""
    path = ":".join(str(REPOSITORY / root) for root in ROOTS)
    found = subprocess.run(
        [sys.executable, "-m", "engine", "plan", *words, "--json"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": path, "PATH": "", "HOME": str(Path.home())}, timeout=60,
    )  # fmt: skip
    rss: int = json.loads(found.stdout)["expected_rss"]
    return rss


def settled(server: RunningServer, expected: int) -> int:
    """Resident bytes once they have not grown for two seconds: the cache is committed in the background, in spurts on a busy machine.

    What is still far below ``expected`` gets a minute to grow.
    """
    found = [server.rss()]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        len(found) < 5 or max(found[-5:]) - min(found[-5:]) > found[-1] * 0.002 or found[-1] < expected * (1 - TOLERANCE)
    ):
        time.sleep(0.5)
        found.append(server.rss())
    return found[-1]


#: Name → model (None: the random Llama) and flags.
CASES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "demo": ("demo", ()),
    "small cache": ("demo", (*SHORT, "--max-num-seqs", "2")),
    "swap": ("demo", ("--max-num-seqs", "16", "--preemption-mode", "swap", "--swap-space", "0.2")),
    "116 MB in bfloat16": (None, (*SHORT, "--max-num-seqs", "16", "--dtype", "bfloat16")),
    "232 MB in float32": (None, (*SHORT, "--max-num-seqs", "16")),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory by /proc")
@pytest.mark.parametrize("case", CASES)
def test_resident_memory_is_what_was_planned(llama: str, tmp_path: Path, case: str) -> None:
    model, flags = CASES[case][0] or llama, (*CPU, *CASES[case][1])
    expected = planned(model, *flags)
    with serve(tmp_path / "log", model, *flags) as server:
        body = {"prompt": ["word " * 200] * 4, "max_tokens": 20, "n": 2, "ignore_eos": True}
        assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).status_code == 200
        found = settled(server, expected)
        print(f"{case}: planned {expected / 2**20:.0f} MiB, resident {found / 2**20:.0f} MiB, ratio {found / expected:.3f}")
        mapped = {Path(entry.path).name for entry in psutil.Process(server.engine_pid()).memory_maps()}
    # torch's compiler and what it imports are 150 MiB that a CPU server has no use for
    assert "libtriton.so" not in mapped
    assert abs(found / expected - 1) <= TOLERANCE
