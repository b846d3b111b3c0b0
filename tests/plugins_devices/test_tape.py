"""Tapes against kernels written in Python: what is recorded, where buffers lie, what is refused."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest
import torch

from engine.plugin import CannotRecord
from engine_devices import _tape
from engine_devices._linear import LinearArgs
from engine_devices._native import Call, Operation
from engine_devices._recorder import TapeRecorder
from engine_devices._tape import Buffers, pack_calls, pointers
from engine_devices._tape import place as place_buffers
from engine_devices._weights import Panels


class AddArgs(ctypes.Structure):
    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("out", ctypes.c_void_p), ("count", ctypes.c_int64))


def floats(address: int, count: int) -> np.ndarray:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,))


def add_kernel(arguments: AddArgs) -> None:
    floats(arguments.out, arguments.count)[:] = floats(arguments.x, arguments.count) + floats(arguments.y, arguments.count)


class PythonKernels:
    """The part of the native library that recording uses, with kernels in Python."""

    def __init__(self) -> None:
        self.tape = None
        self.calls = 0

    def address(self, kernel: str) -> int:
        return {"add": 1}[kernel]

    def run(self, kernel, arguments, *keep) -> None:
        if self.tape is not None:
            self.tape.append(Call(kernel, arguments, keep))
        self.run_list((Operation * 1)(Operation(self.address(kernel), ctypes.addressof(arguments))))

    def run_list(self, operations) -> None:
        self.calls += 1
        for operation in operations:
            add_kernel(AddArgs.from_address(operation.arguments))

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.shape)
        arguments = AddArgs(x.data_ptr(), y.data_ptr(), out.data_ptr(), x.numel())
        self.run("add", arguments, x, y, out)
        return out


@pytest.fixture
def native() -> PythonKernels:
    return PythonKernels()


def test_a_replay_repeats_the_step_on_new_inputs_in_one_call(native):
    x, weight = torch.zeros(6, 4), torch.randn(6, 4)

    def body(rows):
        def run():
            y = native.add(x[:rows], weight[:rows])
            for _ in range(5):
                y = native.add(y, x[:rows])
            return y, y.view(-1)[3:].view(-1)

        return run

    recorder = TapeRecorder(native)
    replays = {rows: recorder.record(body(rows)) for rows in (1, 6, 3)}
    for rows in (6, 1, 3, 6):
        x.normal_()
        expected = weight[:rows].clone()
        for _ in range(6):
            expected = expected + x[:rows]
        before = native.calls
        whole, part = replays[rows].run()
        assert native.calls == before + 1
        assert torch.equal(whole, expected)
        assert torch.equal(part, expected.view(-1)[3:])
        assert torch.equal(replays[rows].outputs[0], expected)


def test_results_stand_in_the_outputs_right_after_recording(native):
    recorder, x = TapeRecorder(native), torch.randn(4)
    for _ in range(2):
        x.normal_()
        assert torch.equal(recorder.record(lambda: (native.add(x, x),)).outputs[0], x + x)


def test_what_pointers_point_to_stays_alive(native):
    x = torch.ones(1000)
    recorder = TapeRecorder(native)

    def record():
        weight = torch.full((1000,), 2.0)
        return recorder.record(lambda: (native.add(x, weight),))

    replay = record()
    gc.collect()
    rubbish = [torch.full((1000,), 9.0) for _ in range(50)]
    x.fill_(3.0)
    assert torch.equal(replay.run()[0], torch.full((1000,), 5.0))
    assert len(rubbish) == 50


def test_buffers_whose_lives_do_not_overlap_share_memory(native):
    x = torch.ones(1024)

    def body():
        y = x
        for _ in range(50):
            y = native.add(y, x)
        return (y,)

    replay = TapeRecorder(native).record(body)
    assert replay._tape.nbytes == 2 * 4096
    assert replay.run()[0][0] == 51


def test_placing_uses_the_lowest_gap():
    tensors = [torch.empty(size) for size in (16, 32, 16, 48)]
    buffers = Buffers(tensors)
    number = [buffers.find(tensor.data_ptr()) for tensor in tensors]
    first = dict(zip(number, (0, 1, 2, 3), strict=True))
    last = dict(zip(number, (1, 5, 3, 4), strict=True))
    offsets, total = place_buffers({buffer: buffers.spans[buffer][1] for buffer in first}, first, last)
    assert [offsets[n] for n in number] == [0, 64, 0, 192]
    assert total == 192 + 4 * 48


def test_pointers_of_nested_structs_and_arrays_are_found():
    class Inner(ctypes.Structure):
        _fields_ = (("n", ctypes.c_int32), ("p", ctypes.c_void_p))

    class Outer(ctypes.Structure):
        _fields_ = (("n", ctypes.c_int64), ("inner", Inner * 2), ("list", ctypes.c_void_p * 3), ("x", ctypes.c_double))

    assert list(pointers(Outer)) == [16, 32, 40, 48, 56]


@pytest.mark.parametrize(
    ("foreign", "name"),
    [
        (lambda x: x * 2, "torch.mul"),
        (lambda x: x[torch.tensor([0, 1])], "torch."),
        (lambda x: x.t().contiguous(), "torch.clone"),
        (lambda x: x.add_(1), "torch.add_"),
        (lambda x: x[: int(x.sum())], "torch.sum"),
    ],
)
def test_a_torch_operation_inside_is_named_and_refused(native, foreign, name):
    x = torch.ones(4, 3)
    with pytest.raises(CannotRecord, match=name.replace(".", r"\.")):
        TapeRecorder(native).record(lambda: (native.add(foreign(x), x),))
    assert native.tape is None


def test_views_are_no_operations(native):
    x = torch.randn(4, 6)

    def body():
        left, right = x.split([2, 4], dim=-1)
        a, b = right.chunk(2, dim=0)
        rows = native.add(x.view(-1), x.flatten())
        return rows.view(2, 12)[0].unsqueeze(0), left[1:].expand(3, 2), a.transpose(0, 1).t(), b

    with torch.inference_mode():
        replay = TapeRecorder(native).record(body)
    x.normal_()
    first, left, a, b = replay.run()
    assert torch.equal(first, (x + x).view(2, 12)[:1])
    assert torch.equal(left, x[1:, :2].expand(3, 2))
    assert torch.equal(torch.cat((a, b)), x[:, 2:])


def test_a_replay_that_gives_something_else_is_refused(native):
    counter = torch.zeros(4)

    def body():
        arguments = AddArgs(counter.data_ptr(), counter.data_ptr(), counter.data_ptr(), 4)
        counter.numpy()[:] += 1
        native.run("add", arguments, counter)
        return (native.add(counter, counter),)

    with pytest.raises(CannotRecord, match="another result 0"):
        TapeRecorder(native).record(body)


def test_an_error_in_the_step_ends_the_recording(native):
    def body():
        raise RuntimeError("out of pages")

    with pytest.raises(RuntimeError, match="out of pages"):
        TapeRecorder(native).record(body)
    assert native.tape is None


@pytest.mark.parametrize(("cache", "once"), [(1 << 10, 1), (2 << 10, 0)])
def test_products_know_that_their_weights_will_be_out_of_every_cache(monkeypatch, cache, once):
    monkeypatch.setattr(_tape, "last_cache_bytes", lambda: cache)
    panels = Panels(torch.zeros(1024, dtype=torch.uint8), 32, 32, 1)
    weights = [panels, panels, Panels(torch.zeros(1024, dtype=torch.uint8), 32, 32, 1)]
    calls = [Call("engine_linear", LinearArgs(rows=3), (kept,)) for kept in weights]
    block, starts = pack_calls(calls)
    packed = [LinearArgs.from_buffer(block, start) for start in starts]
    assert [(each.rows, each.once) for each in packed] == [(3, once)] * 3
