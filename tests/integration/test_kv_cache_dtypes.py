"""8-bit KV caches in the whole engine: answers, bytes, scales of checkpoints and calculated ones, swap and prefix cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine import LLM, SamplingParams
from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.errors import ConfigError
from tests.quant.checkpoints import load_model, tensors_of, tiny_llama

PROMPTS = [[5, 17, 99, 3] * 8, [140, 8, 61, 77, 12, 9, 1, 33, 150], [11, 12, 13]]
DTYPES = ["fp8", "fp8_e4m3", "fp8_e5m2"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama(tmp_path_factory.mktemp("llama")))


def answers(path: str, prompts: list[list[int]] = PROMPTS, **flags: Any) -> list[tuple[list[int], list[float]]]:
    """Ids and the chosen tokens' log probabilities, by prompt."""
    given = {"skip_tokenizer_init": True, "dtype": "float32", "use_tqdm_on_load": False, "disable_frontend_multiprocessing": True}
    params = SamplingParams(temperature=0.0, max_tokens=24, logprobs=1, ignore_eos=True)
    with LLM(model=path, max_num_seqs=8, **(given | flags)) as model:
        done = model.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    found = []
    for output in done:
        one = output.outputs[0]
        chosen = [step[token].logprob for step, token in zip(one.logprobs, one.token_ids, strict=True)]
        found.append((list(one.token_ids), chosen))
    return found


@pytest.fixture(scope="module")
def exact(llama: str) -> Iterator[list[tuple[list[int], list[float]]]]:
    yield answers(llama)


def near(got: list[tuple[list[int], list[float]]], wanted: list[tuple[list[int], list[float]]], tolerance: float) -> None:
    """Log probabilities agree as long as the greedy ids do; the first one always."""
    for (ids, logprobs), (others, expected) in zip(got, wanted, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(ids, others, strict=True)) if a != b), len(ids))
        assert max(abs(a - b) for a, b in zip(logprobs[: same + 1], expected[: same + 1], strict=True)) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_are_near_those_of_an_exact_cache(llama: str, exact: Any, dtype: str) -> None:
    got = answers(llama, kv_cache_dtype=dtype)
    assert [len(ids) for ids, _ in got] == [24, 24, 24]
    near(got, exact, 0.3)
    assert got != exact


def test_calculated_scales(llama: str, exact: Any) -> None:
    got = answers(llama, kv_cache_dtype="fp8", calculate_kv_scales=True)
    near(got, exact, 0.3)
    assert got != answers(llama, kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match="--calculate-kv-scales needs"):
        resolve(EngineArgs(model=llama, skip_tokenizer_init=True, calculate_kv_scales=True))
    with pytest.raises(ConfigError, match="--kv-cache-dtype fp8_e5m2"):
        resolve(EngineArgs(model=llama, skip_tokenizer_init=True, calculate_kv_scales=True, kv_cache_dtype="fp8_e5m2"))


@pytest.mark.parametrize("mode", ["swap", "recompute"])
def test_pages_that_move_stay_the_same(llama: str, mode: str) -> None:
    """Few pages, so that sequences are preempted; and prompts that begin alike, so that pages are shared."""
    prompts = [[*PROMPTS[0], index] for index in range(8)]
    free = answers(llama, prompts, kv_cache_dtype="fp8_e4m3", block_size=16, enable_prefix_caching=False)
    tight = answers(
        llama, prompts, kv_cache_dtype="fp8_e4m3", block_size=16, num_gpu_blocks_override=8, max_model_len=128,
        preemption_mode=mode, swap_space=0.05,
    )  # fmt: skip
    assert [ids for ids, _ in tight] == [ids for ids, _ in free]


def test_a_byte_per_element(llama: str) -> None:
    sizes = {}
    for dtype in ("auto", *DTYPES):
        config = resolve(EngineArgs(model=llama, skip_tokenizer_init=True, dtype="bfloat16", kv_cache_dtype=dtype))
        sizes[dtype] = config.cache.page_bytes
        assert config.cache.scaled == (dtype in ("fp8", "fp8_e4m3"))
    assert {sizes["auto"] / sizes[dtype] for dtype in DTYPES} == {2.0}


def test_scales_of_the_checkpoint(llama: str, tmp_path: Any, exact: Any) -> None:
    from pathlib import Path

    tensors = tensors_of(Path(llama))
    for layer in range(2):
        prefix = f"model.layers.{layer}.self_attn"
        tensors |= {f"{prefix}.k_proj.k_scale": torch.tensor(0.02), f"{prefix}.v_proj.v_scale": torch.tensor(0.5 + layer)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((Path(llama) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = load_model(tmp_path, kv_cache_dtype="fp8")
    specs = [layer.spec for layer in model.modules() if type(layer).__name__ == "Attention"]
    assert [(round(spec.k_scale, 6), spec.v_scale) for spec in specs] == [(0.02, 0.5), (0.02, 1.5)]
    near(answers(str(tmp_path), kv_cache_dtype="fp8"), exact, 0.3)
    for dtype in ("auto", "fp8_e5m2"):
        model, _ = load_model(tmp_path, kv_cache_dtype=dtype)
        assert {layer.spec.k_scale for layer in model.modules() if type(layer).__name__ == "Attention"} == {1.0}
