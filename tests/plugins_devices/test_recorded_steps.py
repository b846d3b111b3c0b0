"""Every native architecture: recorded steps, plain native steps and torch give the same greedy tokens, in mixed batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.worker.computed import Computed
from engine.worker.inputs import StepInputs
from engine.worker.worker import LocalWorker
from engine_devices._native import Absent, load
from engine_devices._recorder import TapeRecorder
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.plugins.models.checkpoints import save
from tests.plugins.models.test_equal_transformers import CASES

TOKENS = 64
PROMPTS = [[5, 9, 31, 7], [11], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [60, 2, 2], [8] * 20, [71, 70], [33, 9, 3], [1, 2, 3, 4]]

pytestmark = pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    module, config = CASES[request.param]
    path = tmp_path_factory.mktemp("checkpoint")
    save(config, path)
    return module, path


def start(case: tuple[str, Path], *, native: bool = True, **changes) -> LocalWorker:
    module, path = case
    modules = {"model": f"engine_plugins.models.{module}"}
    config = make_config(path, modules=modules, **{"pages": 1024, "max_model_len": 256} | changes)
    with pytest.MonkeyPatch.context() as patch:
        if not native:
            patch.setattr("engine_devices._cpu_device.load", lambda: Absent("the test wants torch"))
        return make_worker(config)


def play(worker: LocalWorker, count: int = TOKENS) -> dict[int, list[int]]:
    """Sequence i joins at step 3 i, so that the batch grows and shrinks; each ends after ``count`` tokens."""
    driver = Driver(worker.run, chunk=7)
    step = 0
    while True:
        if step % 3 == 0 and step // 3 < len(PROMPTS):
            driver.add(step // 3, PROMPTS[step // 3], greedy())
        running = [seq for seq, track in driver.tracks.items() if len(track.output) < count]
        if not running:
            return {seq: track.output[:count] for seq, track in driver.tracks.items()}
        driver.step(running)
        step += 1


def test_recorded_plain_and_torch_give_the_same_tokens(case: tuple[str, Path]) -> None:
    truth = play(start(case, native=False))
    assert play(start(case, enforce_eager=True)) == truth
    worker = start(case)
    assert play(worker) == truth
    assert worker.call("describe", {})["steps"] == "recorded, batches of 1, 2 to 8"


def first_logits(worker: LocalWorker) -> torch.Tensor:
    """The logits of the third decode step of four sequences."""
    found = []
    run = worker._runner.run
    worker._runner.run = lambda inputs, _=None: found.append(run(inputs)) or found[-1]
    driver = Driver(worker.run)
    for seq in range(4):
        driver.add(seq, PROMPTS[seq], greedy(allowed_token_ids=[40 + seq]))
    for _ in range(4):
        driver.step([0, 1, 2, 3])
    return found[-1].logits.float().clone()


def test_bfloat16_logits_are_close_to_float32(case: tuple[str, Path]) -> None:
    """In a recorded step no farther than torch's own; every path is fed the same tokens."""
    truth = first_logits(start(case, native=False))
    scale = truth.abs().max()
    torch_error = (first_logits(start(case, native=False, dtype="bfloat16")) - truth).abs().max() / scale
    plain = first_logits(start(case, dtype="bfloat16", enforce_eager=True))
    recorded = first_logits(start(case, dtype="bfloat16"))
    assert (recorded - truth).abs().max() / scale < max(2e-2, 1.5 * torch_error)
    assert torch.equal(recorded, plain)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return made_qwen3(tmp_path_factory.mktemp("checkpoint"))


def made_qwen3(path: Path, **changes: int) -> tuple[str, Path]:
    module, config = CASES["qwen3"]
    save(type(config)(**config.to_dict() | changes), path)
    return module, path


def logits_by_size(worker: LocalWorker, largest: int) -> dict[int, torch.Tensor]:
    """Of decode steps of 1, 2, … ``largest`` sequences: the i-th has i tokens more than the first."""
    found: dict[int, torch.Tensor] = {}
    run = worker._runner.run

    def watched(inputs: StepInputs, _successor: object = None) -> Computed:
        computed = run(inputs)
        if inputs.decode and computed.logits is not None:
            found[len(inputs.sequences)] = computed.logits.clone()
        return computed

    worker._runner.run = watched  # type: ignore[method-assign]
    driver = Driver(worker.run)
    for seq in range(largest):
        driver.add(seq, [seq + 3] * (seq + 1), greedy(allowed_token_ids=[40]))
        driver.step(list(range(seq + 1)))
        driver.step(list(range(seq + 1)))
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_batch_size_follows_from_few_recordings(qwen3: tuple[str, Path], dtype: str) -> None:
    """Bit by bit, also where a larger batch moved the memory meanwhile."""
    plain = logits_by_size(start(qwen3, dtype=dtype, enforce_eager=True, max_num_seqs=80, pages=4096), 67)
    worker = start(qwen3, dtype=dtype, max_num_seqs=80, pages=4096)
    recorded = logits_by_size(worker, 67)
    assert set(plain) == set(recorded) == set(range(1, 68))
    assert all(torch.equal(plain[size], recorded[size]) for size in plain)
    assert worker.call("describe", {})["steps"] == "recorded, batches of 1, 2 to 8, 9 and more"


@pytest.mark.parametrize(("most", "steps"), [(80, "1, 2 to 8, 9 and more"), (5, "1, 2 to 8"), (1, "1")])
def test_a_prepared_worker_records_nothing_more(
    qwen3: tuple[str, Path], most: int, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = (start(qwen3, max_num_seqs=most, pages=4096) for _ in range(2))
    while worker.call("prepare", {}):
        pass
    assert worker.call("describe", {})["steps"] == f"recorded, batches of {steps}"
    expected = logits_by_size(other, most)
    monkeypatch.setattr(TapeRecorder, "_watch", None)
    prepared = logits_by_size(worker, most)
    assert all(torch.equal(prepared[size], expected[size]) for size in expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("inner", "each"), [(64, 8), (48, 9)])
def test_neighbours_are_fused(tmp_path: Path, inner: int, each: int, dtype: str) -> None:
    """Per layer: norm, q k v, heads into pages, attention, output + residual, norm, gate · up, down + residual.

    The gate joins the product only where its width divides by 32.
    """
    case = made_qwen3(tmp_path, intermediate_size=inner)
    worker = start(case, dtype=dtype)
    recorded = first_logits(worker)
    assert worker._runner._decodes is not None
    (replay,) = worker._runner._decodes._pairs.values()
    assert len(replay._operations) == 3 * each + len(("embed", "angles", "norm", "head with the best"))
    assert torch.equal(recorded, first_logits(start(case, dtype=dtype, enforce_eager=True)))


def test_a_model_with_a_foreign_operation_runs_plainly_and_says_why(
    qwen3: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = play(start(qwen3), 8)
    worker = start(qwen3)
    forward = worker._model.forward
    monkeypatch.setattr(worker._model, "forward", lambda batch: forward(batch) * 1.0)
    assert play(worker, 8) == truth
    assert worker.call("describe", {})["steps"] == "plain: torch.mul runs outside the native operations"


def test_enforce_eager_records_nothing(qwen3: tuple[str, Path]) -> None:
    worker = start(qwen3, enforce_eager=True)
    first_logits(worker)
    assert worker.call("describe", {})["steps"] == "plain: --enforce-eager"
