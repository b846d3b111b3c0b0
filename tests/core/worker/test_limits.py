"""What a device can do at most: its own word, else torch's."""

from __future__ import annotations

import pytest
import torch

from engine.plugin import Device, Memory
from engine.worker.limits import measure_limits


class Plain(Device):
    name = "plain"

    def torch_device(self):
        return torch.device("cpu")

    def memory(self):
        return Memory(1 << 30, 1 << 30)

    def attention(self):
        return None


def test_torch_is_measured_where_the_device_cannot_tell():
    found = measure_limits(Plain(), "float32")
    assert 1e8 < found["read_bytes"] <= found["read_bytes_best"] < 1e13
    assert 1e8 < found["operations"] <= found["operations_best"] < 1e15


def test_a_device_speaks_for_itself():
    class Known(Plain):
        def limits(self, dtype):
            return {"read_bytes": 1.0, "read_bytes_best": 2.0, "operations": 3.0, "operations_best": 4.0}

    assert measure_limits(Known(), "bfloat16") == Known().limits("bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_the_cpu_device_measures_and_profiles(dtype):
    cpu = pytest.importorskip("engine_devices._cpu_device").CPUDevice()
    if "native" not in cpu.describe()["linear"]:
        pytest.skip("no native library here")
    cpu.profile(True)
    found = measure_limits(cpu, dtype)
    seconds = cpu.profile(False)
    assert 1e8 < found["read_bytes"] <= found["read_bytes_best"] < 1e13
    assert 1e8 < found["operations"] <= found["operations_best"] < 1e15
    assert set(seconds) == {"engine_read_roof", "engine_multiply_roof"} and min(seconds.values()) > 0.1
    assert cpu.profile(False) == {}, "nothing is counted while it is off"
