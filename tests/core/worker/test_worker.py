"""A worker on a real model equals transformers, however the tokens are cut into steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.config import EngineConfig
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.data import shared

PROMPTS = [[1, 5, 9, 33, 2, 8, 61], [3], list(range(10, 29)), [90, 4, 4, 4, 7]]


@pytest.fixture
def config(checkpoint: Path) -> EngineConfig:
    return make_config(checkpoint)


def reference(path: Path, prompt: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """Greedy ids and the log-probabilities [count, vocab] of transformers."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids, rows = list(prompt), []
    with torch.inference_mode():
        for _ in range(count):
            rows.append(torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1))
            ids.append(int(rows[-1].argmax()))
    return ids[len(prompt) :], torch.stack(rows)


@pytest.mark.parametrize("chunk", [512, 7, 1])
def test_greedy_and_logprobs_equal_transformers(config: EngineConfig, checkpoint: Path, chunk: int) -> None:
    driver = Driver(make_worker(config).run, chunk=chunk)
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(logprobs=3))
    outputs = driver.generate(12)
    for seq, prompt in enumerate(PROMPTS):
        ids, rows = reference(checkpoint, prompt, 12)
        assert outputs[seq] == ids
        entries = [entry for result in driver.tracks[seq].results for entry in result.logprobs or []]
        assert [entry.token_id for entry in entries] == ids
        for entry, row in zip(entries, rows, strict=True):
            best = row.topk(3)
            assert entry.rank == 1
            assert entry.logprob == pytest.approx(row.max().item(), abs=1e-4)
            assert entry.top_ids == best.indices.tolist()
            assert entry.top_logprobs == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("chunk", [512, 3])
def test_stories_equal_the_recorded_reference(chunk: int) -> None:
    path = shared("stories260k")
    rows = json.loads((path / "reference_greedy.json").read_text())["rows"]
    config = make_config(path, pages=128, block_size=16)
    driver = Driver(make_worker(config).run, block_size=16, chunk=chunk)
    for seq, row in enumerate(rows):
        driver.add(seq, row["prompt_ids"], greedy(logprobs=5, prompt_logprobs=0))
    outputs = driver.generate(64)
    for seq, row in enumerate(rows):
        assert outputs[seq] == row["greedy_ids"]
        entries = [entry for result in driver.tracks[seq].results for entry in result.logprobs or []]
        assert [entry.logprob for entry in entries] == pytest.approx(row["logprobs"], abs=1e-3)
        prompt = [entry for result in driver.tracks[seq].results for entry in result.prompt_logprobs or []]
        assert [entry.token_id for entry in prompt] == row["prompt_ids"][1:]
        assert [entry.logprob for entry in prompt] == pytest.approx(row["prompt_logprobs"][1:], abs=1e-3)
