from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.errors import UnavailablePlugin
from engine.layers.packed import DensePacked
from engine.plugin.facts import DeviceFacts
from engine_devices import auto, cpu, cuda
from engine_devices._cuda_driver import DriverAbsent, visible_gpus
from engine_devices._native import Absent


def facts(name, available, priority, reason="because"):
    return DeviceFacts(name=name, available=available, reason=reason, priority=priority)


def test_probing_and_choosing_import_no_torch():
    root = Path(__file__).parents[2]
    code = (
        "import sys; from engine_devices import auto, cpu, cuda;"
        "use = auto.engine_choose_device([cpu.engine_probe_device(), cuda.engine_probe_device()]);"
        "assert not {'torch', 'triton', 'transformers', 'numpy'} & set(sys.modules), sys.modules;"
        "print(use.name)"
    )
    env = {"PYTHONPATH": f"{root / 'core'}:{root / 'plugins_devices'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("cpu", "cuda")


def test_cpu_probe():
    probe = cpu.engine_probe_device()
    assert probe.available
    assert probe.name == "cpu"
    assert probe.shared_memory
    assert 0 <= probe.free_memory <= probe.total_memory
    assert set(probe.dtypes) == {"float32", "bfloat16", "float16"}
    assert "cores" in probe.description


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 sse", "bfloat16"), ("flags : fpu amx_bf16", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm", "bfloat16"), ("flags : fpu avx2 avx512f", "float32"), ("", "float32"),
    ],
)  # fmt: skip
def test_cpu_prefers_what_the_processor_multiplies(tmp_path, line, first):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nmodel name : Some CPU @ 2: GHz\n{line}\n\nprocessor : 1\n")
    assert cpu.dtypes(path)[0] == first
    assert cpu.processor_name(path) == "Some CPU @ 2: GHz"
    assert cpu.dtypes(tmp_path / "absent") == ("float32", "bfloat16", "float16")


def test_cpu_device(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    device = cpu.engine_create_device(0)
    assert device.torch_device() == torch.device("cpu")
    memory = device.memory()
    assert 0 <= memory.free <= memory.total
    assert device.collective_backend() == "gloo"
    assert device.dtypes() == cpu.engine_probe_device().dtypes
    assert {"threads", "native kernels", "linear", "attention"} <= set(device.describe())
    device.synchronize()
    device.close()
    device.close()


def test_cpu_device_without_native_kernels(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("engine_devices._cpu_device.load", lambda: Absent("ENGINE_CPU_NATIVE=0"))
    device = cpu.engine_create_device(0)
    assert device.attention() is None
    assert device.recorder() is None
    assert device.linear_kernel(DensePacked(torch.ones(4, 4))) is None
    assert device.describe()["linear"] == "torch"
    assert device.describe()["native kernels"] == "none: ENGINE_CPU_NATIVE=0"


def test_cpu_device_takes_the_cores_it_may_use(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr("engine_devices._cpu_device.usable_cores", lambda: 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        cpu.engine_create_device(0)
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        cpu.engine_create_device(0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_auto_takes_the_highest_priority_that_is_available():
    probes = [facts("cpu", True, 0), facts("cuda", False, 100, "no driver"), facts("xpu", True, 50)]
    use = auto.engine_choose_device(probes)
    assert use.name == "xpu"
    assert "cuda: no driver" in use.reason
    assert auto.engine_choose_device([*probes, facts("cuda2", True, 200)]).name == "cuda2"


def test_auto_names_every_reason_when_there_is_no_device():
    with pytest.raises(UnavailablePlugin, match=r"cpu: odd system; cuda: no driver"):
        auto.engine_choose_device([facts("cpu", False, 0, "odd system"), facts("cuda", False, 100, "no driver")])
    with pytest.raises(UnavailablePlugin, match="no device plugin"):
        auto.engine_choose_device([])


def test_auto_is_never_a_device():
    with pytest.raises(UnavailablePlugin, match="not resolved"):
        auto.engine_create_device()


class FakeDriver:
    """libcuda with two GPUs, or one that fails."""

    def __init__(self, capabilities=((8, 0), (9, 0)), status=0):
        self.capabilities, self.status = capabilities, status

    def cuInit(self, flags):
        return self.status

    def cuGetErrorName(self, status, text):
        text._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, handle, index):
        handle._obj.value = 70 + index
        return 0

    def cuDeviceGetName(self, buffer, size, handle):
        buffer.value = f"Fake {handle}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, total, handle):
        total._obj.value = (handle - 60) << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):
        value._obj.value = self.capabilities[handle - 70][{75: 0, 76: 1}[attribute]]
        return 0


@pytest.fixture
def driver(monkeypatch):
    def install(fake, torch_version="2.13.0"):
        monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
        monkeypatch.setattr("importlib.metadata.version", lambda name: torch_version)

    return install


def test_cuda_probe_reads_the_driver(driver):
    driver(FakeDriver())
    assert [(gpu.name, gpu.total_memory >> 30, gpu.capability) for gpu in visible_gpus()] == [
        ("Fake 70", 10, (8, 0)), ("Fake 71", 11, (9, 0))
    ]  # fmt: skip
    probe = cuda.engine_probe_device()
    assert (probe.available, probe.count, probe.total_memory >> 30) == (True, 2, 10)
    assert probe.dtypes[0] == "bfloat16"


@pytest.mark.parametrize(
    ("fake", "version", "reason"),
    [
        (FakeDriver(status=100), "2.13.0", "cuInit: CUDA_ERROR_NO_DEVICE"), (FakeDriver(()), "2.13.0", "shows no GPU"),
        (FakeDriver(((7, 5), (8, 0))), "2.13.0", "Fake 70 has compute capability 7.5, at least 8.0"),
        (FakeDriver(), "2.13.0+cpu", "built without CUDA"), (object(), "2.13.0", "too old"),
    ],
)  # fmt: skip
def test_cuda_is_unavailable_with_its_reason(driver, fake, version, reason):
    driver(fake, version)
    probe = cuda.engine_probe_device()
    assert not probe.available
    assert reason in probe.reason
    assert probe.priority > cpu.engine_probe_device().priority


def test_cuda_without_a_driver(monkeypatch):
    with pytest.raises(DriverAbsent, match="no NVIDIA driver is installed"):
        visible_gpus("libno-such-driver.so.1")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_cuda_device_refuses_a_torch_without_cuda():
    with pytest.raises(UnavailablePlugin, match="built without CUDA"):
        cuda.engine_create_device(0)


def test_workers_take_the_last_cores_one_after_the_other(monkeypatch):
    from engine_devices import _cpu_device

    monkeypatch.setattr(_cpu_device, "physical_cores", lambda: [0, 1, 2, 5, 7])
    assert _cpu_device.cores_for(0, 2) == [7, 5]
    assert _cpu_device.cores_for(1, 2) == [2, 1]
    assert _cpu_device.cores_for(2, 2) is None
    monkeypatch.setenv("ENGINE_CPU_PIN", "0")
    assert _cpu_device.cores_for(0, 2) is None
