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
    assert 1e8 < found["operations"] < 1e15


def test_a_device_speaks_for_itself():
    class Known(Plain):
        def limits(self, dtype):
            return {"read_bytes": 1.0, "read_bytes_best": 2.0, "operations": 3.0}

    assert measure_limits(Known(), "bfloat16") == {"read_bytes": 1.0, "read_bytes_best": 2.0, "operations": 3.0}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_cpu_device_measures_and_profiles(dtype):
    cpu = pytest.importorskip("engine_devices._cpu_device").CPUDevice()
    found = measure_limits(cpu, dtype)
    assert 1e8 < found["read_bytes"] <= found["read_bytes_best"] < 1e13 and 1e8 < found["operations"] < 1e15
    cpu.profile(True)
    cpu.limits(dtype)
    seconds = cpu.profile(False)
    if "native" not in cpu.describe()["linear"]:
        pytest.skip("no native library here")
    assert set(seconds) == {"engine_read_roof", "engine_multiply_roof"} and min(seconds.values()) > 0.1
    assert cpu.profile(False) == {}, "nothing is counted while it is off"
