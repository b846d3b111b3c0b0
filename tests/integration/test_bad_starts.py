"""Damaged models and wrong flags: the exit status, and a last line that names the cause and what would work."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.checkpoint import BUNDLED
from tests.integration import damage as d
from tests.integration.serving import REPOSITORY, ROOTS

DEMO = BUNDLED / "demo"
HEADERS = ("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
PLAN, SERVE = "plan", "serve"

#: (row, name, command that must notice it, damage, words of the last line). All end with status 4.
FILES: list[tuple[int, str, str, d.Damage, tuple[str, ...]]] = [
    (40, "template that is none", SERVE, d.text("chat_template.jinja", "{% for x in %}"), ("chat template", "--chat-template")),
    (40, "template of parentheses", SERVE, d.text("chat_template.jinja", "{{" + "(" * 6000 + ")" * 6000 + "}}"), ("chat template",)),
    (48, "harmful pickle", PLAN, d.harmful_pickle, ("pytorch_model.bin", "nothing was run", "safetensors")),
    (49, "truncated", PLAN, d.truncated, ("model.safetensors", "bytes expected", d.NORM, "download")),
    (49, "header longer than the file", PLAN, d.header_size(2**40), ("model.safetensors", str(2**40))),
    (49, "overlapping tensors", PLAN, d.header(d.same_place), ("model.safetensors", d.UP, "overlaps")),
    (49, "unknown dtype", PLAN, d.tensor(d.NORM, dtype="BF17"), ("model.safetensors", d.NORM, "BF17", "BF16")),
    (49, "dtype of another size", PLAN, d.tensor(d.NORM, dtype="F32"), ("model.safetensors", d.NORM, "1024 bytes", "512")),
    (49, "name twice", PLAN, d.header(d.twice), ("model.safetensors", d.NORM, "twice")),
    (49, "negative offsets", PLAN, d.tensor(d.NORM, data_offsets=[-10, 5]), ("model.safetensors", d.NORM, "[-10, 5]")),
    (49, "unknown tensor", SERVE, d.header(lambda h: h.update({"x": h.pop(d.NORM)})), ("'x'", "nearest", "config.json")),
    (49, "wrong shape", SERVE, d.tensor(d.UP, shape=[256, 768]), (d.UP, "[256, 768]", "[768, 256]")),
    (50, "header of 150 MB", PLAN, d.header_size(150_000_000, 200_000_000), ("model.safetensors", "150000000", "100000000")),
    (50, "deep header", PLAN, d.header(lambda _: '{"a":' * 50_000), ("model.safetensors", "header", "not valid JSON")),
    (51, "missing shard", PLAN, d.index("model-00002-of-00002.safetensors"), ("model-00002-of-00002.safetensors is missing",)),
    (51, "shard outside", PLAN, d.index("../../secret.safetensors"), ("../../secret.safetensors", "outside")),
    (53, "vocabulary without merges", SERVE, d.tokenizer(lambda t: t["model"].pop("merges")), ("tokenizer.json", "merges")),
    (53, "tokenizer that is no JSON", SERVE, d.text("tokenizer.json", "{"), ("tokenizer.json", "not valid JSON")),
    (53, "no tokenizer", SERVE, d.gone("tokenizer.json", "tokenizer_config.json"), ("no tokenizer", "--tokenizer")),
    (54, "no config", PLAN, d.gone("config.json"), ("config.json", "params.json", "--hf-config-path")),
    (54, "config that is no JSON", PLAN, d.text("config.json", '{"a":'), ("config.json", "not valid JSON", "char 5")),
    (54, "config that is a list", PLAN, d.text("config.json", "[]"), ("config.json", "array", "object")),
    (54, "wrong type", PLAN, d.config(hidden_size="big"), ("hidden_size is 'big'", "whole number", "--hf-overrides")),
    (54, "10^9 layers", PLAN, d.config(num_hidden_layers=10**9), ("num_hidden_layers is 1000000000", "10000")),
    (54, "head_dim 0", PLAN, d.config(head_dim=0), ("head_dim is 0", "from 1")),
    (54, "heads that do not divide", PLAN, d.config(num_key_value_heads=3), ("num_key_value_heads is 3", "divisor")),
    (54, "missing key", PLAN, d.config(hidden_size=...), ("hidden_size is missing", "--hf-overrides")),
    (54, "no word of the head", SERVE, d.config(tie_word_embeddings=...), ("lm_head.weight", '--hf-overrides \'{"tie_word_embeddings"')),
    (54, "no number", PLAN, d.config(rope_theta=float("nan")), ("rope_theta is nan",)),
    (54, "no architecture", PLAN, d.config(architectures=...), ("architectures is None", "--hf-overrides")),
    (54, "unknown architecture", PLAN, d.config(architectures=["Qwen3ForCausalLn"]), ("Qwen3ForCausalLn", "nearest is Qwen3ForCausalLM")),
    (59, "pipe", PLAN, d.pipe("model.safetensors"), ("model.safetensors", "named pipe")),
    (59, "directory", PLAN, d.folder("model.safetensors"), ("model.safetensors", "a directory")),
    (59, "config is a pipe", PLAN, d.pipe("config.json"), ("config.json", "not a regular file")),
    (59, "link to nowhere", PLAN, d.link_to_nowhere, ("model.safetensors", "No such file")),
    (59, "no weights", PLAN, d.gone("model.safetensors"), ("holds no weights", "--load-format dummy")),
]

#: (row, name, status, words of the command line after ``serve demo``, words of the last line).
FLAGS: list[tuple[int, str, int, tuple[str, ...], tuple[str, ...]]] = [
    (52, "GGUF where there is none", 4, ("--load-format", "gguf"), ("--load-format gguf", "holds no .gguf file")),
    (60, "LoRA", 2, ("--enable-lora",), ("--enable-lora", "LoRA", "leave --enable-lora out")),
    (60, "LoRA modules", 2, ("--lora-modules", "a=/nowhere"), ("--lora-modules", "LoRA")),
    (61, "unknown flag", 2, ("--max-num-sqes", "4"), ("--max-num-sqes: no such flag", "--max-num-seqs")),
    (61, "wrong type", 2, ("--max-num-seqs", "many"), ("--max-num-seqs many", "not an integer")),
    (61, "out of range", 2, ("--gpu-memory-utilization", "1.5"), ("--gpu-memory-utilization 1.5", "at most 1")),
    (61, "outside the choices", 2, ("--block-size", "17"), ("--block-size 17", "8, 16, 32, 64, 128")),
    (61, "contradiction", 2, ("--max-num-seqs", "9", "--max-num-batched-tokens", "4"), ("--max-num-batched-tokens 4", "--max-num-seqs 9")),
    (61, "too long", 2, ("--max-model-len", "4096"), ("--max-model-len 4096", "2048")),
    (61, "unknown plugin", 3, ("--load-format", "safetensor"), ("--load-format safetensor", "Did you mean safetensors?")),
    (61, "JSON", 2, ("--hf-overrides", "{x"), ("--hf-overrides {x", "not valid JSON")),
    (61, "blocks that do not fit", 5, ("--num-gpu-blocks-override", str(10**9)), ("--num-gpu-blocks-override 1000000000", "GiB")),
]


def run(*words: str, optimized: bool = False) -> subprocess.CompletedProcess[str]:
    """The command line ``engine WORDS`` in a process of its own; ``optimized``: without assertions."""
    path = os.pathsep.join([*(str(REPOSITORY / root) for root in ROOTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    flags = ["-O"] if optimized else []
    return subprocess.run(
        [sys.executable, *flags, "-m", "engine", *words], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def refused(found: subprocess.CompletedProcess[str], command: str, status: int, words: tuple[str, ...]) -> None:
    """The status, one plain last line that begins with the command and has those words."""
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == status, found.stderr[-2000:]
    assert last.startswith(f"engine {command}: ")
    for word in words:
        assert word in last
    assert "Traceback" not in found.stderr


def spoiled(place: Path, damage: d.Damage) -> Path:
    """A damaged copy of the bundled model."""
    place.mkdir()
    for name in HEADERS:
        shutil.copy(DEMO / name, place / name)
    damage(place)
    return place


@pytest.mark.parametrize(
    ("row", "name", "command", "damage", "words"), FILES, ids=[f"{row}-{name}".replace(" ", "-") for row, name, *_ in FILES]
)
def test_damaged_files(tmp_path: Path, row: int, name: str, command: str, damage: d.Damage, words: tuple[str, ...]) -> None:
    place = spoiled(tmp_path / "model", damage)
    port = ["--port", "0"] if command == SERVE else []
    refused(run(command, str(place), *port), command, 4, words)
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("row", "name", "status", "line", "words"), FLAGS, ids=[f"{row}-{name}".replace(" ", "-") for row, name, *_ in FLAGS]
)
def test_wrong_flags(row: int, name: str, status: int, line: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(run("serve", "demo", "--port", "0", *line), "serve", status, words)


def test_without_assertions_everything_is_checked_just_the_same(tmp_path: Path) -> None:
    """Row 56."""
    place = spoiled(tmp_path / "model", d.truncated)
    refused(run("plan", str(place), optimized=True), "plan", 4, ("bytes expected",))
    refused(run("serve", "demo", "--max-num-seqs", "0", optimized=True), "serve", 2, ("--max-num-seqs 0",))


def test_code_of_the_checkpoint_is_not_run(tmp_path: Path) -> None:
    """Row 55."""
    place = spoiled(tmp_path / "model", d.own_code)
    found = run("generate", str(place), "--prompt", "Hi", "--max-tokens", "1")
    assert found.returncode == 0, found.stderr
    assert "auto_map" in found.stderr
    assert not (place / "ran").exists()


def test_no_archive_is_opened(tmp_path: Path) -> None:
    """Row 57."""
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", DEMO, "config.json")
    refused(run("plan", archive), "plan", 4, (archive, "a model is a directory"))


def test_all_problems_at_once() -> None:
    """Row 61."""
    found = run("serve", "demo", "--max-num-sqes", "4", "--dtype", "int9", "--max-logprobs", "-1")
    assert found.returncode == 2
    for word in ("--max-num-sqes", "--dtype int9", "--max-logprobs -1"):
        assert word in found.stderr


def test_configuration_files(tmp_path: Path) -> None:
    """Row 62: the file and the line."""
    path = tmp_path / "engine.yaml"
    path.write_text("port: 0\nmax-num-sqes: 4\n")
    refused(run("serve", "demo", "--config", str(path)), "serve", 2, (f"{path}:2", "--max-num-seqs"))
    path.write_text("seed: 1\nseed: 2\n")
    refused(run("serve", "demo", "--config", str(path)), "serve", 2, (f"{path}:2", "--seed", "twice"))


def test_a_port_in_use_is_known_before_anything_is_loaded() -> None:
    """Row 65."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run("serve", "demo", "--port", str(port))
    refused(found, "serve", 6, (f"Port {port}", "--port", "ss -ltnp"))
    assert "Loading" not in found.stderr
    refused(run("serve", "demo", "--host", "no.such.host.invalid"), "serve", 6, ("no.such.host.invalid", "--host 127.0.0.1"))


def test_a_larger_vocabulary_than_the_model_is_no_danger(tmp_path: Path) -> None:
    """Row 53: a token that the model lacks is refused, not looked up."""
    place = spoiled(
        tmp_path / "model", d.tokenizer(lambda t: t["added_tokens"].append({**t["added_tokens"][0], "id": 9999, "content": "<|far|>"}))
    )
    assert run("generate", str(place), "--prompt", "Hi", "--max-tokens", "1").returncode == 0
    refused(run("generate", str(place), "--prompt", "<|far|>", "--max-tokens", "1"), "generate", 1, ("token id", "2047"))


def test_the_plan_lists_what_is_refused(tmp_path: Path) -> None:
    found = run("plan", str(spoiled(tmp_path / "model", d.truncated)), "--json")
    (refusal,) = json.loads(found.stdout)["refused"]
    assert (found.returncode, refusal["status"], refusal["error"]) == (4, 4, "ModelFileError")
    assert "bytes expected" in refusal["cause"]
