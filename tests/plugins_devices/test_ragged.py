"""Steps of any form from two recordings: the same bits as plain ones, and what is refused."""

from __future__ import annotations

import mmap
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CannotRecord
from engine.worker.worker import LocalWorker
from engine_devices._composite import linear_kernel
from engine_devices._native import Absent, load
from engine_devices._operations import NativeOperations
from engine_devices._ragged import SHAPES
from engine_devices._recorder import TapeRecorder
from engine_devices._tape import QUIET
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.plugins.models.checkpoints import save
from tests.plugins.models.test_equal_transformers import CASES
from tests.plugins_devices.test_tape import PythonKernels

MIXTURES = {"mixtral", "qwen3_moe"}
ALONE = [name for name, (module, _) in CASES.items() if module not in MIXTURES]

native_only = pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")


def play(worker: LocalWorker) -> list[torch.Tensor]:
    """The logits of every step while prompts of all lengths join, in chunks of up to 70 tokens, and go on."""
    found = []
    run = worker._runner.run

    def watched(inputs, _successor=None):
        computed = run(inputs)
        if computed.logits is not None:
            found.append(computed.logits.clone())
        return computed

    worker._runner.run = watched
    driver = Driver(worker.run, chunk=70)
    for seq, length in enumerate((12, 90, 1, 33, 64, 5, 100)):
        driver.add(seq, [(7 * seq + i) % 60 + 2 for i in range(length)], greedy(allowed_token_ids=[40 + seq]))
        driver.step(list(driver.tracks))
    for _ in range(3):
        driver.step(list(driver.tracks))
    return found


@native_only
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ALONE)
def test_the_bits_of_plain_steps(name: str, dtype: str, tmp_path: Path) -> None:
    module, config = CASES[name]
    save(config, tmp_path)

    def start(**changes) -> LocalWorker:
        modules = {"model": f"engine_plugins.models.{module}"}
        return make_worker(make_config(tmp_path, modules=modules, pages=1024, max_model_len=128, dtype=dtype, **changes))

    plain = play(start(enforce_eager=True))
    worker = start()
    recorded = play(worker)
    assert worker._runner._ragged
    assert worker._runner.ragged_plain == ""
    assert len(recorded) == len(plain) > 8
    for ours, theirs in zip(recorded, plain, strict=True):
        assert torch.equal(ours, theirs)


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operations_with_work_space_of_their_own(dtype: torch.dtype) -> None:
    """Products with 8-bit weights quantize many rows once, into a buffer whose size is no multiple of the rows."""
    native = load()
    assert not isinstance(native, Absent)
    torch.manual_seed(1)
    first = linear_kernel(native, GroupedInteger.quantize(torch.randn(96, 64), bits=8, group=32))
    second = linear_kernel(native, DensePacked(torch.randn(48, 96).to(dtype)))
    assert first is not None
    assert second is not None
    ops, x = NativeOperations(native), torch.zeros(300, 64, dtype=dtype)
    torch.set_num_threads(1)

    def body(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        return (second.apply(ops.activate(first.apply(x[:rows], None), "silu"), None),)

    replay = TapeRecorder(native).record_ragged(lambda *_: None, body)
    for rows in (11, 12, 64, 65, 300, 13):
        x.copy_(torch.randn(300, 64))
        expected = body(rows, 1)[0]
        (result,) = replay.run(rows, 1)
        assert torch.equal(result, expected)


@pytest.fixture
def recorder() -> TapeRecorder:
    return TapeRecorder(PythonKernels())  # type: ignore[arg-type]


def nothing(rows: int, sequences: int, wanted: int) -> None: ...


def test_a_step_grows_with_its_rows(recorder: TapeRecorder) -> None:
    native, x, y = recorder._native, torch.randn(500, 4), torch.randn(500, 4)

    def body(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        return (native.add(native.add(x[:rows], y[:rows]), x[:rows]),)

    replay = recorder.record_ragged(nothing, body)
    for rows in (11, 500, 100, 63, 64, 65):
        x.normal_()
        (result,) = replay.run(rows, 3)
        assert torch.equal(result, x[:rows] + y[:rows] + x[:rows])


def test_what_differs_in_other_ways_is_refused(recorder: TapeRecorder) -> None:
    native, x = recorder._native, torch.randn(2000)

    def more_operations(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        y = x[:rows]
        for _ in range(rows):
            y = native.add(y, x[:rows])
        return (y,)

    def squares(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        return (native.add(x[: rows * rows], x[: rows * rows]),)

    def elsewhere(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        return (native.add(x[rows : 2 * rows], x[:rows]),)

    def untouched(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        native.add(x[:rows], x[:rows])
        return (x[:rows],)

    for body, reason in (
        (more_operations, "different operations"), (squares, "in a way of its own"), (elsewhere, "different memory"),
        (untouched, "not made by the native operations"),
    ):  # fmt: skip
        with pytest.raises(CannotRecord, match=reason):
            recorder.record_ragged(nothing, body)


def test_recordings_can_tell_counts_apart() -> None:
    for (few, more), (other_few, other_more) in combinations(zip(*SHAPES, strict=True), 2):
        assert few * other_more != more * other_few
    assert len({count for counts in SHAPES for count in counts}) == 6


def test_results_may_grow_with_the_wanted_rows(recorder: TapeRecorder) -> None:
    native, x, y = recorder._native, torch.randn(500, 4), torch.randn(500, 4)

    def body(rows: int, _: int, wanted: int) -> tuple[torch.Tensor, ...]:
        whole = native.add(x[:rows], y[:rows])
        return whole, native.add(native.add(x[:wanted], x[:wanted]), y[:wanted])

    replay = recorder.record_ragged(nothing, body)
    for rows, wanted in ((11, 1), (500, 0), (500, 500), (100, 9), (63, 8), (64, 7), (64, 64)):
        x.normal_()
        every, some = replay.run(rows, 3, wanted)
        assert torch.equal(every, x[:rows] + y[:rows])
        assert torch.equal(some, x[:wanted] + x[:wanted] + y[:wanted])


@pytest.mark.skipif(sys.platform != "linux", reason="memory goes back to the system on Linux")
def test_memory_of_long_prompts_is_given_back_and_taken_again(recorder: TapeRecorder) -> None:
    native, arena, x = recorder._native, recorder._arena, torch.randn(1 << 16, 64)

    def body(rows: int, *_: int) -> tuple[torch.Tensor, ...]:
        return (native.add(x[:rows], x[:rows]),)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    small = recorder.record(lambda: body(2, 1))
    ragged = recorder.record_ragged(nothing, body)
    ragged.run(1 << 16, 1)
    full = resident()
    for _ in range(QUIET):
        (result,) = small.run()
    assert resident() < full - (x.numel() * 4) // 2
    assert torch.equal(result, 2 * x[:2])
    assert torch.equal(ragged.run(1 << 16, 1)[0], 2 * x)
    assert len(arena.memory) >= x.numel() * 4
