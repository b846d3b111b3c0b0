"""Before the first step: weights, progress, memory, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from engine.attention import built_in
from engine.config import ParallelConfig
from engine.errors import MemoryShortage, ModelFileError
from engine.plugin import AttentionSpec, Batch, Memory
from engine.worker.memory import measure_budget, rehearse
from engine.worker.worker import LocalWorker
from engine_devices._cpu_device import CPUDevice
from tests.core.worker.harness import Driver, greedy, make_config, make_worker

PROMPT = [1, 5, 9, 33, 2, 8, 61]


def test_missing_tensors_are_named(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(ModelFileError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        LocalWorker(make_config(tmp_path), 0, "").load()


def test_a_loader_without_files_fills_every_parameter(checkpoint: Path) -> None:
    config = make_config(checkpoint, modules={"loader": "engine_plugins.loaders.dummy"})
    driver = Driver(make_worker(config).run)
    driver.add(0, PROMPT, greedy(logprobs=0))
    driver.generate(3)
    assert all(result.error is None for result in driver.tracks[0].results)


def test_progress_is_told_in_bytes(checkpoint: Path) -> None:
    told: list[tuple[str, int, int]] = []
    LocalWorker(make_config(checkpoint), 0, "", lambda *args: told.append(args)).load()
    total = told[-1][2]
    assert told[-1] == ("weights", total, total)
    assert 0 < total <= (checkpoint / "model.safetensors").stat().st_size


def test_the_budget_counts_whole_pages(checkpoint: Path) -> None:
    config = make_config(checkpoint, pages=50, host_pages=7)
    worker = LocalWorker(config, 0, "")
    worker.load()
    budget = worker.budget()
    assert (budget.pages, budget.host_pages) == (50, 7)
    spec: AttentionSpec = config.model.info.layers[0]
    # The native kernels keep heads of 8 as 16.
    width = spec.head_dim if built_in("cpu").name == worker._attention.name else 16
    assert budget.page_bytes == 2 * (2 * spec.num_kv_heads * width * 4) * 4


def test_no_page_is_a_memory_shortage(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 pages' worth, 90 % may be used: what is free beyond the other 10 % counts. Ranks halve the host's memory."""
    config = make_config(checkpoint, pages=1000)
    cache = msgspec.structs.replace(config.cache, pages_override=None)
    config = msgspec.structs.replace(config, cache=cache)
    worker = LocalWorker(config, 0, "")
    worker.load()
    page = worker.budget().page_bytes
    monkeypatch.setattr(CPUDevice, "memory", lambda self: Memory(1000 * page, 150 * page))
    assert worker.budget().pages == 50
    shared = msgspec.structs.replace(config.device, shared_memory=True)
    two = msgspec.structs.replace(config, device=shared, parallel=ParallelConfig(tensor_parallel=2))
    assert measure_budget(two, CPUDevice(), page, 0).pages == 75
    swap = msgspec.structs.replace(two, cache=msgspec.structs.replace(cache, host_pages=10))
    assert measure_budget(swap, CPUDevice(), page, 0).pages == 65
    monkeypatch.setattr(CPUDevice, "memory", lambda self: Memory(1000 * page, 99 * page))
    with pytest.raises(MemoryShortage, match="no page"):
        worker.budget()
    override = msgspec.structs.replace(config, cache=msgspec.structs.replace(cache, pages_override=20, pages=20))
    assert measure_budget(override, CPUDevice(), page, 0).pages == 20


@pytest.mark.parametrize("budget", [5, 128, 300])
def test_the_rehearsal_runs_the_largest_step_and_stores_nothing(checkpoint: Path, budget: int) -> None:
    config = make_config(checkpoint, max_model_len=100)
    scheduler = msgspec.structs.replace(config.scheduler, max_num_batched_tokens=budget)
    config = msgspec.structs.replace(config, scheduler=scheduler)
    worker = make_worker(config)
    rows: list[int] = []
    forward = worker._model.forward

    def counted(batch: Batch) -> torch.Tensor:
        rows.append(len(batch.token_ids))
        return forward(batch)

    worker._model.forward = counted
    caches = [cache[:1] for cache in worker._pages.caches]
    with torch.inference_mode():
        rehearse(worker._model, caches, config, torch.device("cpu"))
    assert rows == [budget]
    assert all(not cache.any() for cache in worker._pages.caches)
