"""Steps that are begun before the engine asks for them give what steps give that are not, whatever it then asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from engine.plugin.request import SamplingParams
from engine.plugin.step import Step
from engine.worker.early import Early
from engine.worker.worker import LocalWorker
from tests.core.worker.harness import Driver, greedy, make_config, make_worker

PROMPTS = [[1, 5, 9, 33, 2, 8, 61], [3], list(range(10, 29)), [90, 4, 4, 4, 7]]


def threaded(checkpoint: Path, **config: Any) -> LocalWorker:
    """A worker with several threads: one alone cannot begin anything beside its caller."""
    torch.set_num_threads(3)
    worker = make_worker(make_config(checkpoint, **config))
    if worker._runner.plain:
        pytest.skip(f"steps are not recorded here: {worker._runner.plain}")
    return worker


class Counted:
    """How many steps were begun, asked for then, and begun by the device alone."""

    def __init__(self, worker: LocalWorker) -> None:
        self.begun = self.claimed = self.alone = 0
        early = worker._early
        assert early is not None
        begin, claim, finish = early.begin, early.claim, early._runner._finish

        def counted_begin(*step: Any) -> None:
            begin(*step)
            self.begun += early._inputs is not None

        def counted_finish(*step: Any) -> Any:
            computed = finish(*step)
            self.alone += computed.tokens is not None
            return computed

        def counted_claim(step: Any) -> Any:
            inputs = claim(step)
            self.claimed += inputs is not None
            return inputs

        early.begin, early.claim = counted_begin, counted_claim  # type: ignore[method-assign, assignment]
        early._runner._finish = counted_finish  # type: ignore[method-assign, assignment]


Scenario = Callable[[Driver], dict[int, list[int]]]


def both(checkpoint: Path, scenario: Scenario, **config: Any) -> Counted:
    """Run it with and without beginning early; tokens and log-probabilities are the same to the bit."""
    seen: list[Any] = []
    counted = None
    for early in (False, True):
        worker = threaded(checkpoint, **config)
        if not early:
            worker._early = None
        else:
            counted = Counted(worker)
        driver = Driver(worker.run)
        tokens = scenario(driver)
        logprobs = {seq: [each.logprobs for each in track.results] for seq, track in driver.tracks.items()}
        seen.append((tokens, logprobs))
        worker.close()
    assert seen[0] == seen[1]
    assert counted is not None
    return counted


def add(driver: Driver, seq: int, **params: Any) -> None:
    driver.add(seq, PROMPTS[seq % 4], greedy(**params))


@pytest.mark.parametrize("sequences", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_batch_that_stays(checkpoint: Path, sequences: int, temperature: float) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        for seq in range(sequences):
            add(driver, seq, temperature=temperature, top_p=0.9, seed=seq)
        return driver.generate(40)

    counted = both(checkpoint, scenario, max_seq_len_to_capture=64)
    # A page of four tokens comes when it is needed here, so some steps cannot be foreseen.
    assert counted.begun - 1 <= counted.claimed <= counted.begun
    assert counted.claimed >= (25 if sequences == 1 else 2)
    assert (counted.alone > 0) == (temperature == 0.0 and sequences == 1)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_step_is_begun_where_pages_are_there(checkpoint: Path, temperature: float) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        for seq in range(4):
            add(driver, seq, temperature=temperature, seed=seq)
        driver.block_size = 64
        return driver.generate(40)

    counted = both(checkpoint, scenario, block_size=64)
    assert counted.claimed >= 30
    assert counted.alone == (counted.claimed if temperature == 0.0 else 0)


def test_a_row_without_a_finite_logit_stops_the_device(checkpoint: Path) -> None:
    worker = threaded(checkpoint, block_size=64)
    counted, driver = Counted(worker), Driver(worker.run, block_size=64)
    add(driver, 0)
    add(driver, 2)
    driver.generate(10)
    alone = counted.alone
    assert alone > 0
    early = worker._early
    assert early is not None
    early.drop()
    with torch.inference_mode():
        for cache in worker._runner._caches:
            cache.fill_(float("nan"))
    for _ in range(2):
        result = driver.submit(Step(index=driver.index, work=[driver.work(0), driver.work(2)]))
        assert [each.error for each in result.results] == ["the model's logits are not finite"] * 2
        for track in driver.tracks.values():
            track.computed += 1
            track.tokens.append(1)
    assert counted.alone == alone
    worker.close()


def test_batches_that_change(checkpoint: Path) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        add(driver, 0)
        driver.generate(9)
        add(driver, 1)
        driver.step([0, 1])
        for _ in range(7):
            driver.step([0, 1])
        for _ in range(7):
            driver.step([1])
        for _ in range(7):
            driver.step([1, 0])
        driver.step([0], preempted=[1])
        driver.tracks[1].computed, driver.tracks[1].blocks = 0, []
        return driver.generate(34)

    counted = both(checkpoint, scenario)
    assert 8 <= counted.claimed < counted.begun
    assert counted.alone > 0


@pytest.mark.parametrize(
    "params",
    [
        {"logprobs": 3}, {"repetition_penalty": 1.3}, {"frequency_penalty": 0.7, "temperature": 0.5, "seed": 3},
        {"logit_bias": {5: 4.0, 9: 3.0}}, {"min_tokens": 3, "logprobs": 0}, {"prompt_logprobs": 1},
    ],
)  # fmt: skip
def test_a_request_with_wishes_joins_plain_ones(checkpoint: Path, params: dict[str, Any]) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        add(driver, 0)
        add(driver, 2)
        driver.generate(10)
        driver.add(3, PROMPTS[3], SamplingParams(**({"temperature": 0.0, "max_tokens": 64} | params)))
        driver.generate(16, [3])
        return driver.generate(30)

    assert both(checkpoint, scenario).claimed >= 8


def test_drafts_are_verified_as_ever(checkpoint: Path) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        add(driver, 0)
        driver.generate(8)
        for tokens in ([4, 5], [1]):
            driver.step([0], {0: tokens})
            driver.step([0])
        return driver.generate(30)

    counted = both(checkpoint, scenario)
    assert counted.claimed < counted.begun


def test_swapped_pages_are_not_written_meanwhile(checkpoint: Path) -> None:
    def scenario(driver: Driver) -> dict[int, list[int]]:
        add(driver, 0)
        add(driver, 1)
        driver.generate(11)
        donor, page = driver.tracks[1].blocks, driver.pages(driver.tracks[1], len(driver.tracks[1].tokens) + 5)
        driver.step([0], copies=[(donor[0], page[-1])])
        return driver.generate(24, [0])

    both(checkpoint, scenario)


@pytest.mark.parametrize("why", ["length", "token"])
def test_nothing_is_begun_where_a_sequence_ends(checkpoint: Path, why: str) -> None:
    worker = threaded(checkpoint, block_size=32)
    counted, driver = Counted(worker), Driver(worker.run, block_size=32)
    add(driver, 2)
    driver.generate(8)
    before = counted.begun
    assert before > 0
    if why == "token":
        worker._table[2].ends = frozenset(range(97))
        assert worker._early is not None
        worker._early._ends = None
    work = msgspec.structs.replace(driver.work(2), last=why == "length")
    driver.submit(Step(index=driver.index, work=[work]))
    assert counted.begun == before
    worker.close()


def test_what_was_begun_ends_before_anything_else(checkpoint: Path) -> None:
    worker = threaded(checkpoint, block_size=16)
    driver = Driver(worker.run, block_size=16)
    add(driver, 2)
    driver.generate(8)
    early = worker._early
    assert isinstance(early, Early)
    assert early._inputs is not None
    worker.call("describe", {})
    assert early._inputs is None
    first = driver.generate(12)[2]
    assert early._inputs is not None
    worker.close()
    assert early._inputs is None
    plain = make_worker(make_config(checkpoint, enforce_eager=True))
    again = Driver(plain.run)
    add(again, 2)
    assert again.generate(12)[2] == first
    plain.close()
