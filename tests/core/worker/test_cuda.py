"""On a GPU: recorded decode equals plain decode, and both equal the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.core.worker.harness import Driver, greedy, make_config, make_worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = [[1, 5, 9, 33, 2, 8, 61], [3], list(range(10, 29)), [90, 4, 4, 4, 7], [11] * 40]
CUDA = {"device": "engine_devices.cuda"}


def outputs(path: Path, **changes: object) -> tuple[dict[int, list[int]], list[float]]:
    worker = make_worker(make_config(path, block_size=16, **changes))
    driver = Driver(worker.run, block_size=16, chunk=16)
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(temperature=0.8 if seq % 2 else 0.0, top_p=0.9, seed=seq, logprobs=1))
    tokens = driver.generate(24)
    results = [result for track in driver.tracks.values() for result in track.results]
    worker.close()
    return tokens, [entry.logprob for result in results for entry in result.logprobs or []]


@pytest.mark.parametrize("enforce_eager", [True, False])
def test_the_gpu_answers_as_the_cpu(checkpoint: Path, enforce_eager: bool) -> None:
    expected, logprobs = outputs(checkpoint)
    got, found = outputs(checkpoint, modules=CUDA, enforce_eager=enforce_eager, max_num_seqs=6)
    assert got == expected
    assert found == pytest.approx(logprobs, abs=1e-3)


def test_pages_swap_between_gpu_and_host(checkpoint: Path) -> None:
    from engine.plugin import Step
    from engine.worker.swap import PagePool

    caches = [torch.randn(6, 2, 3, device="cuda") for _ in range(2)]
    before = [cache.cpu() for cache in caches]
    pool = PagePool(caches, host_pages=2)
    assert pool.host[0].is_pinned()
    pool.move(Step(index=0, swap_out=[(5, 0), (2, 1)]))
    pool.move(Step(index=1, swap_in=[(1, 0), (0, 1)], copies=[(3, 4)]))
    for cache, old in zip(caches, before, strict=True):
        assert torch.equal(cache.cpu()[[0, 1, 4]], old[[2, 5, 3]])
