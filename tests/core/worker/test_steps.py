"""Steps beyond plain decoding: swaps, preemption, drafts, recorded steps, prompt log-probabilities, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.plugin import PoolingParams, Recorder, Replay, Step, Work
from engine.worker.runner import recorded_sizes
from engine.worker.swap import PagePool
from tests.core.worker.harness import Driver, greedy, make_config, make_worker

PROMPTS = [[1, 5, 9, 33, 2, 8, 61], [3], list(range(10, 29)), [90, 4, 4, 4, 7]]


def plain(checkpoint: Path, count: int) -> dict[int, list[int]]:
    """What an undisturbed run gives."""
    driver = Driver(make_worker(make_config(checkpoint)).run)
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(temperature=0.9 if seq % 2 else 0.0, seed=seq))
    return driver.generate(count)


def add_all(driver: Driver) -> None:
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(temperature=0.9 if seq % 2 else 0.0, seed=seq))


def test_moves_happen_in_order() -> None:
    """Out, then in, then copies: a page that is freed by a swap may be filled in the same step."""
    caches = [torch.arange(6.0)[:, None].repeat(1, 3), torch.arange(6)[:, None, None].repeat(1, 2, 2) * 10]
    pool = PagePool(caches, host_pages=3)
    pool.move(Step(index=0, swap_out=[(1, 2), (4, 0)]))
    assert [page[0].item() for page in pool.host[0]] == [4, 0, 1]
    pool.move(Step(index=1, swap_out=[(5, 1)], swap_in=[(2, 5), (0, 0)], copies=[(5, 2), (3, 1)]))
    assert [page[0].item() for page in pool.host[0]] == [4, 5, 1]
    assert caches[0][:, 0].tolist() == [4, 3, 1, 3, 4, 1]
    assert caches[1][:, 1, 1].tolist() == [40, 30, 10, 30, 40, 10]


def test_a_swap_without_host_pages_is_refused() -> None:
    pool = PagePool([torch.zeros(2, 2)], host_pages=0)
    with pytest.raises(ValueError, match="no host pages"):
        pool.move(Step(index=0, swap_out=[(0, 0)]))


def test_swapped_sequences_go_on_as_if_nothing_had_been(checkpoint: Path) -> None:
    expected = plain(checkpoint, 14)
    driver = Driver(make_worker(make_config(checkpoint, host_pages=16)).run)
    add_all(driver)
    driver.generate(6)
    victim = driver.tracks[2]
    out = [(page, i) for i, page in enumerate(victim.blocks)]
    # The victim's pages are overwritten at once by another sequence's.
    donor = driver.tracks[0].blocks[0]
    driver.step([0, 1], preempted=[2], swap_out=out, copies=[(donor, page) for page, _ in out])
    pages = len(victim.blocks)
    victim.blocks = []
    fresh = driver.pages(victim, pages * 4)
    item = Work(
        seq=2, start=victim.computed, count=1, append=victim.tokens[victim.known :],
        blocks=[*fresh, *driver.pages(victim, victim.computed + 1)],
    )  # fmt: skip
    victim.known = len(victim.tokens)
    step = Step(index=driver.index, work=[item], swap_in=[(i, page) for i, page in enumerate(fresh)])
    victim.tokens += driver.submit(step).results[0].token_ids
    victim.computed += 1
    assert driver.generate(14) == expected


def test_recomputed_sequences_go_on_as_if_nothing_had_been(checkpoint: Path) -> None:
    expected = plain(checkpoint, 14)
    driver = Driver(make_worker(make_config(checkpoint)).run, chunk=6)
    add_all(driver)
    driver.generate(6)
    driver.step([0], preempted=[1, 2])
    for seq in (1, 2):
        driver.tracks[seq].blocks, driver.tracks[seq].computed = [], 0
    assert driver.generate(14) == expected


def test_copied_pages_serve_another_sequence(checkpoint: Path) -> None:
    """A prefix that another sequence has computed is copied instead of computed."""
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[2], greedy())
    first = driver.generate(8)[0]
    driver.add(1, PROMPTS[2], greedy())
    track = driver.tracks[1]
    copies = list(zip(driver.tracks[0].blocks[:4], driver.pages(track, 16), strict=True))
    blocks = [*track.blocks, *driver.pages(track, len(PROMPTS[2]))]
    item = Work(seq=1, start=16, count=len(PROMPTS[2]) - 16, blocks=blocks)
    answer = driver.submit(Step(index=driver.index, new=driver.fresh, work=[item], copies=copies))
    assert answer.results[0].token_ids == first[:1]


@pytest.mark.parametrize("temperature", [0.0, 1.1])
def test_drafts_change_how_many_tokens_come_at_once_and_nothing_else(checkpoint: Path, temperature: float) -> None:
    params = greedy(temperature=temperature, seed=5, logprobs=2, repetition_penalty=1.1)
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[0], params)
    expected = driver.generate(20)[0]
    logprobs = [entry for result in driver.tracks[0].results for entry in result.logprobs or []]
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[0], params)
    driver.add(1, PROMPTS[2], greedy())
    driver.step([0, 1])
    taken = []
    while len(driver.tracks[0].output) < 20:
        done = len(driver.tracks[0].output)
        draft = expected[done : done + 3]
        if len(taken) % 3 == 1 and len(draft) > 1:
            draft[1] = (draft[1] + 1) % 97
        result = driver.step([0, 1], drafts={0: draft})
        taken.append(len(result.results[0].token_ids))
        assert len(result.results[1].token_ids) == 1
    assert driver.tracks[0].output[:20] == expected
    assert taken[0] == 4
    assert taken[1] == 2
    got = [entry for result in driver.tracks[0].results for entry in result.logprobs or []]
    for a, b in zip(got, logprobs, strict=False):
        assert (a.token_id, a.top_ids) == (b.token_id, b.top_ids)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)


class Tape(Recorder):
    """Records by keeping the body; a replay runs it again on whatever the buffers then hold."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def record(self, body: Callable[[], tuple[torch.Tensor, ...]]) -> Replay:
        tape = self
        tape.recorded += 1
        first = body()

        class Again(Replay):
            @property
            def outputs(self) -> tuple[torch.Tensor, ...]:
                return first

            def run(self) -> tuple[torch.Tensor, ...]:
                tape.replayed += 1
                for out, new in zip(first, body(), strict=True):
                    out.copy_(new)
                return first

        return Again()


def test_recorded_steps_equal_plain_ones(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes 1, 2, 4, 5: three sequences run padded; contexts beyond 24 tokens run plainly."""
    expected = plain(checkpoint, 14)
    tape = Tape()
    monkeypatch.setattr("engine_devices._cpu_device.CPUDevice.recorder", lambda self: tape)
    config = make_config(checkpoint, max_num_seqs=5, max_seq_len_to_capture=24)
    driver = Driver(make_worker(config).run)
    assert tape.recorded == 4
    add_all(driver)
    driver.generate(3)
    driver.generate(9, [0, 1, 3])
    assert tape.replayed == 8
    driver.generate(9)
    replayed = tape.replayed
    assert driver.generate(14) == expected
    assert tape.replayed == replayed
    driver.generate(15, [0, 1])
    assert tape.replayed == replayed + 1
    make_worker(make_config(checkpoint, enforce_eager=True))
    assert tape.recorded == 4


def test_recorded_sizes_cover_every_batch() -> None:
    assert recorded_sizes(1) == [1]
    assert recorded_sizes(5) == [1, 2, 4, 5]
    assert recorded_sizes(256)[-2:] == [240, 256]
    assert recorded_sizes(4000)[-1] == 512


@pytest.mark.parametrize("chunk", [1, 3, 512])
@pytest.mark.parametrize("rows_at_once", [1, 5, 1000])
def test_prompt_logprobs_equal_transformers(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, rows_at_once: int
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr("engine.worker.logprobs.CHUNK_BYTES", rows_at_once * 97 * 4)
    driver = Driver(make_worker(make_config(checkpoint)).run, chunk=chunk)
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(prompt_logprobs=2))
    driver.generate(3)
    model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    for seq, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            rows = torch.log_softmax(model(torch.tensor([prompt])).logits[0], -1)
        results = driver.tracks[seq].results
        entries = [entry for result in results for entry in result.prompt_logprobs or []]
        assert [entry.token_id for entry in entries] == prompt[1:]
        for entry, row in zip(entries, rows, strict=False):
            assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
            assert entry.rank == int((row > row[entry.token_id]).sum()) + 1
            assert entry.top_ids == row.topk(2).indices.tolist()
        assert results[-1].prompt_logprobs is None


def test_prompt_logprobs_of_a_cached_prefix_are_refused(checkpoint: Path) -> None:
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[0], greedy(prompt_logprobs=0))
    driver.tracks[0].computed = 4
    with pytest.raises(ValueError, match="without its predecessor"):
        driver.step([0])


def test_what_this_worker_cannot_serve_fails_alone(checkpoint: Path) -> None:
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[0], greedy())
    driver.add(1, PROMPTS[1], greedy(), adapter="sql")
    driver.add(2, PROMPTS[1], greedy(), pooling=PoolingParams())
    answers = driver.step([1, 0, 2]).results
    assert "adapter 'sql'" in (answers[0].error or "")
    assert "pooling task 'embed'" in (answers[2].error or "")
    assert answers[1].error is None
    assert answers[1].token_ids == plain(checkpoint, 1)[0]


def test_a_broken_sequence_does_not_touch_the_others(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain(checkpoint, 6)
    worker = make_worker(make_config(checkpoint, enforce_eager=True))
    driver = Driver(worker.run)
    add_all(driver)
    driver.generate(3)
    logits = worker._model.logits

    def poisoned(hidden: torch.Tensor) -> torch.Tensor:
        rows = logits(hidden)
        rows[1, 5] = torch.nan
        return rows

    monkeypatch.setattr(worker._model, "logits", poisoned)
    answers = driver.step([0, 1, 2, 3]).results
    assert answers[1].error == "the model's logits are not finite"
    assert answers[1].token_ids == []
    monkeypatch.undo()
    driver.step([0, 2, 3], ended=[1])
    assert driver.generate(6, [0, 2, 3]) == {seq: expected[seq] for seq in (0, 2, 3)}
    assert worker.call("describe", {})["sequences"] == 3


def test_rows_are_used_again_and_tables_grow(checkpoint: Path) -> None:
    """More sequences than max_num_seqs may be known at a time, and ended ones give their rows back."""
    worker = make_worker(make_config(checkpoint, max_num_seqs=2, pages=400))
    driver = Driver(worker.run)
    expected = plain(checkpoint, 5)
    for wave in range(3):
        first = wave * 10
        for seq, prompt in enumerate(PROMPTS):
            driver.add(first + seq, prompt, greedy(temperature=0.9 if seq % 2 else 0.0, seed=seq))
        got = driver.generate(5, [first + seq for seq in range(4)])
        assert list(got.values()) == list(expected.values())
        worker.run(Step(index=0, ended=list(got)))
        assert worker.call("describe", {})["sequences"] == 0
    assert worker._table.blocks.shape[0] == 4


def test_a_step_that_overruns_its_blocks_is_an_error(checkpoint: Path) -> None:
    driver = Driver(make_worker(make_config(checkpoint)).run)
    driver.add(0, PROMPTS[2], greedy())
    item = Work(seq=0, start=0, count=len(PROMPTS[2]), blocks=[0])
    with pytest.raises(ValueError, match="1 blocks of 4"):
        driver.submit(Step(index=0, new=driver.fresh, work=[item]))
