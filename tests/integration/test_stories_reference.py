"""Real trained weights: greedy ids and log-probabilities equal the recorded reference in every mode of running."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine import LLM, SamplingParams
from tests.data import shared

TOLERANCE = 1e-3
PARAMS = SamplingParams(temperature=0.0, max_tokens=64, logprobs=5, prompt_logprobs=0)

#: Name of the mode → flags. 32 blocks of 8 tokens cannot hold 16 sequences of ~80 tokens: preemption is certain.
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "chunked-7": {"max_num_batched_tokens": 7, "max_num_seqs": 7},
    "eager-no-cache": {"enforce_eager": True, "enable_prefix_caching": False},
    "recompute": {"num_gpu_blocks_override": 32, "block_size": 8, "preemption_mode": "recompute", "max_model_len": 200},
    "swap": {"num_gpu_blocks_override": 32, "block_size": 8, "preemption_mode": "swap", "swap_space": 0.1, "max_model_len": 200},
    "tp2": {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"},
    "transformers": {"model_impl": "transformers"},
    "in-thread": {"disable_frontend_multiprocessing": True},
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return json.loads((shared("stories260k") / "reference_greedy.json").read_text())["rows"]


@pytest.fixture(scope="module", params=MODES)
def llm(request: pytest.FixtureRequest) -> Any:
    model = LLM(model=str(shared("stories260k")), dtype="float32", use_tqdm_on_load=False, **MODES[request.param])
    yield model
    model.close()


def check(output: Any, row: dict[str, Any]) -> None:
    completion = output.outputs[0]
    assert list(output.prompt_token_ids) == row["prompt_ids"]
    assert list(completion.token_ids) == row["greedy_ids"]
    got = [step[token].logprob for step, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    assert got == pytest.approx(row["logprobs"], abs=TOLERANCE)
    for step, ids in zip(completion.logprobs, row["top_ids"], strict=True):
        assert set(ids) <= set(step) or min(entry.logprob for entry in step.values()) < -5
    if output.prompt_logprobs is not None:
        expected = row["prompt_logprobs"]
        assert output.prompt_logprobs[0] is None
        got = [step[token].logprob for step, token in zip(output.prompt_logprobs[1:], row["prompt_ids"][1:], strict=True)]
        assert got == pytest.approx(expected[1:], abs=TOLERANCE)


def prompts(rows: list[dict[str, Any]]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": row["prompt_ids"]} for row in rows]


def test_alone(llm: LLM, rows: list[dict[str, Any]]) -> None:
    for row, prompt in zip(rows[:3], prompts(rows)[:3], strict=True):
        check(llm.generate([prompt], PARAMS, use_tqdm=False)[0], row)


def test_sixteen_at_once(llm: LLM, rows: list[dict[str, Any]]) -> None:
    repeated = (rows * 2)[:16]
    for output, row in zip(llm.generate(prompts(repeated), PARAMS, use_tqdm=False), repeated, strict=True):
        check(output, row)


def test_again_with_a_warm_cache(llm: LLM, rows: list[dict[str, Any]]) -> None:
    without_prompt_logprobs = SamplingParams(temperature=0.0, max_tokens=64, logprobs=5)
    repeated = (rows * 2)[:16]
    for output, row in zip(llm.generate(prompts(repeated), without_prompt_logprobs, use_tqdm=False), repeated, strict=True):
        check(output, row)


def test_text_equals_the_reference(llm: LLM, rows: list[dict[str, Any]]) -> None:
    outputs = llm.generate([row["prompt"] for row in rows], PARAMS, use_tqdm=False)
    assert [output.outputs[0].text for output in outputs] == [row["text"] for row in rows]


def test_preemption_really_happened(llm: LLM, rows: list[dict[str, Any]], request: pytest.FixtureRequest) -> None:
    mode = request.node.callspec.params["llm"]
    if mode not in ("recompute", "swap"):
        pytest.skip("only the modes with few blocks preempt")
    llm.generate(prompts((rows * 2)[:16]), PARAMS, use_tqdm=False)
    assert llm.stats().preemptions > 0
