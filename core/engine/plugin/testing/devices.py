"""Suite of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import UnavailablePlugin
from engine.plugin.api import Choice
from engine.plugin.contracts.device import Device
from engine.plugin.facts import DeviceFacts
from engine.plugin.host import PluginHost
from engine.plugin.kinds import Kind
from engine.plugin.testing.base import PluginContract, choosing_hook
from engine.plugin.testing.probe import HEAVY, probe_call


class DeviceContract(PluginContract):
    """The probe is asked everywhere; the rest where the probe says that the device is there."""

    kind_name = "device"

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        return {"index": 0, "options": dict(self.options)}

    @pytest.fixture
    def facts(self, host: PluginHost, row: Kind[Any], choice: Choice) -> DeviceFacts:
        """The probe's answer."""
        if choosing_hook(host, row, choice) is not None:
            pytest.skip(f"{self.name} stands for other devices")
        answer: DeviceFacts = host.call(row, self.name, "engine_probe_device")
        return answer

    @pytest.fixture
    def device(self, facts: DeviceFacts, create: Callable[[], Device]) -> Device:
        """The device, where it is available."""
        if not facts.available:
            pytest.skip(f"{self.name}: {facts.reason}")
        return create()

    @pytest.fixture
    def plugin(self, device: Device) -> Device:
        return device

    def test_the_probe_tells_facts_that_fit(self, facts: DeviceFacts) -> None:
        assert isinstance(facts, DeviceFacts)
        assert facts.name == self.name
        assert facts.reason or facts.available, "unavailable, but the probe does not say why"
        assert 0 <= facts.free_memory <= facts.total_memory
        assert not facts.available or (facts.count >= 1 and facts.total_memory > 0 and facts.dtypes)

    def test_a_stand_in_takes_what_is_there(self, host: PluginHost, row: Kind[Any], choice: Choice) -> None:
        hook = choosing_hook(host, row, choice)
        if hook is None:
            pytest.skip(f"{self.name} is a device of its own")
        there, gone = DeviceFacts("there", True, "found", 1, 1, 10, 5), DeviceFacts("gone", False, "no driver", 9)
        assert host.call(row, self.name, hook, probes=[gone, there]).name == "there"
        with pytest.raises(UnavailablePlugin, match="no driver"):
            host.call(row, self.name, hook, probes=[gone])

    def test_the_probe_is_light(self, facts: DeviceFacts, choice: Choice) -> None:
        heavy = [name for name in probe_call(choice.module, "engine_probe_device") if name in HEAVY]
        assert not heavy, f"probing imports {', '.join(heavy)}"

    def test_memory_adds_up(self, device: Device) -> None:
        memory = device.memory()
        assert 0 <= memory.free <= memory.total

    def test_tensors_live_there(self, device: Device) -> None:
        import torch

        for name in device.dtypes():
            assert torch.zeros(4, dtype=getattr(torch, name), device=device.torch_device()).sum().item() == 0
        device.synchronize()

    def test_its_linear_kernel_multiplies_as_the_reference_does(self, device: Device) -> None:
        import torch

        from engine.layers.packed import DensePacked, reference_kernel

        for name, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
            if name not in device.dtypes():
                continue
            for rows, outputs, inputs in ((1, 40, 33), (5, 33, 64), (33, 7, 129)):
                generator = torch.Generator().manual_seed(rows)
                weight = torch.randn(outputs, inputs, generator=generator).to(getattr(torch, name)).to(device.torch_device())
                x = torch.randn(rows, inputs, generator=generator).to(weight)
                kernel = device.linear_kernel(DensePacked(weight.clone())) or reference_kernel(DensePacked(weight))
                expected = x.double() @ weight.double().T
                error = (kernel.apply(x, None).double() - expected).abs().max() / expected.abs().max()
                assert error <= tolerance, f"{name}, {rows} rows of {inputs} to {outputs}: error {error:.2g}"
                for begin, end in ((0, 32), (32, outputs)):
                    part = kernel.part(begin, end) if end <= outputs and begin < end else None
                    assert part is None or torch.equal(part.apply(x, None), kernel.apply(x, None)[:, begin:end])

    def test_its_operations_are_those_of_the_core(self, device: Device) -> None:
        import torch

        from engine.layers.operations import TorchOperations

        own = device.operations()
        if own is None:
            pytest.skip(f"{self.name} takes the core's operations")
        x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1)).to(device.torch_device())
        weight = torch.rand(48, generator=torch.Generator().manual_seed(2)).to(device.torch_device())
        expected = TorchOperations().rms_norm(x, weight, 1e-6)
        assert (own.rms_norm(x, weight, 1e-6) - expected).abs().max() < 1e-5

    def test_it_describes_itself_in_words(self, device: Device) -> None:
        described = device.describe()
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in described.items())
        assert isinstance(device.collective_backend(), str)
