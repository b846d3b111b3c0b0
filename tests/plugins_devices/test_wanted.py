"""The last layer computes the rows alone whose logits are wanted: the same logits as with all rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.plugin import SamplingParams
from engine.worker.worker import LocalWorker
from engine_devices._native import Absent, load
from engine_devices._operations import NativeOperations
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.plugins.models.checkpoints import save
from tests.plugins.models.test_equal_transformers import CASES
from tests.plugins_devices.test_ragged import play

native_only = pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")


def start(place: Path, module: str, selects: bool, **changes) -> LocalWorker:
    modules = {"model": f"engine_plugins.models.{module}"}
    worker = make_worker(make_config(place, modules=modules, pages=1024, max_model_len=128, **changes))
    assert worker._model.selects
    worker._model.selects = selects
    return worker


@native_only
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_all_rows(name: str, dtype: str, plain: bool, tmp_path: Path) -> None:
    """Prompts in chunks, some of which sample nothing, beside decodes; mixtures of experts; sandwich blocks."""
    module, config = CASES[name]
    save(config, tmp_path)
    every, some = (play(start(tmp_path, module, selects, dtype=dtype, enforce_eager=plain)) for selects in (False, True))
    assert len(every) == len(some) > 8
    for whole, part in zip(every, some, strict=True):
        assert torch.equal(whole, part)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "mixtral", "opt"])
def test_torch_alone_gives_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_devices.cpu.load", lambda: Absent("a test"), raising=False)
    monkeypatch.setattr("engine_devices._cpu_device.load", lambda: Absent("a test"), raising=False)
    module, config = CASES[name]
    save(config, tmp_path)
    workers = [start(tmp_path, module, selects) for selects in (False, True)]
    assert workers[1]._attention.name == "torch reference"
    every, some = map(play, workers)
    for whole, part in zip(every, some, strict=True):
        assert (whole - part).abs().max() <= 1e-5 * whole.abs().max()


def lengths_of(worker: LocalWorker) -> list[int]:
    """The rows that the last layer's feed-forward gets, step by step."""
    found: list[int] = []
    worker._model.blocks[-1].mlp.register_forward_pre_hook(lambda _, given: found.append(len(given[0])))
    return found


def test_no_more_rows_than_are_wanted(tmp_path: Path) -> None:
    module, config = CASES["qwen3"]
    save(config, tmp_path)
    worker = start(tmp_path, module, True, enforce_eager=True)
    found = lengths_of(worker)
    driver = Driver(worker.run, chunk=20)
    driver.add(0, list(range(2, 32)), greedy())
    driver.step([0])  # a chunk that samples nothing
    driver.add(1, list(range(5, 12)), greedy())
    driver.step([0, 1])
    driver.step([0, 1], drafts={0: [7, 8, 9]})  # drafts are wanted as well
    assert found == [0, 2, 5]


@pytest.mark.parametrize("plain", [True, False])
def test_prompt_logprobs_see_every_row(plain: bool, tmp_path: Path) -> None:
    module, config = CASES["llama"]
    save(config, tmp_path)
    answers = []
    for selects in (False, True):
        driver = Driver(start(tmp_path, module, selects, enforce_eager=plain).run, chunk=16)
        driver.add(0, list(range(2, 42)), greedy(prompt_logprobs=2, logprobs=1))
        driver.add(1, list(range(9, 30)), greedy())
        for _ in range(5):
            driver.step([0, 1])
        answers.append([track.results for track in driver.tracks.values()])
    assert answers[0] == answers[1]
    assert sum(len(result.prompt_logprobs or []) for result in answers[1][0]) >= 39


def test_a_model_that_breaks_its_word_is_named(tmp_path: Path) -> None:
    module, config = CASES["llama"]
    save(config, tmp_path)
    worker = start(tmp_path, module, True, enforce_eager=True)
    worker._model.forward = lambda batch: torch.zeros(len(batch.token_ids), 32)
    driver = Driver(worker.run)
    driver.add(0, list(range(2, 12)), SamplingParams(temperature=0.0))
    with pytest.raises(RuntimeError, match="Llama says that it `selects`, but returned 10 rows where 1 were wanted"):
        driver.step([0])


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_chosen_from_any_view(dtype: torch.dtype) -> None:
    native = load()
    assert not isinstance(native, Absent)
    ops, x = NativeOperations(native), torch.randn(40, 3, 4, 24).to(dtype)
    views = (x[:, 0, 0], x[:, 1], x[:, 1, :, 5:20], x[:, :, 2, 3:4], x[:, 0, 0].T[:, :7].T, x)
    for rows in (torch.tensor([39, 0, 0, 7]), torch.arange(40), torch.zeros(0, dtype=torch.int64)):
        for view in views:
            valid = rows[rows < len(view)]
            chosen = ops.select(view, valid)
            assert chosen.is_contiguous()
            assert torch.equal(chosen, view[valid])
