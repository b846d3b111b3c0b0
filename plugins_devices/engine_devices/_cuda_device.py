"""One NVIDIA GPU as a worker uses it."""

from __future__ import annotations

import torch

from engine.errors import UnavailablePlugin
from engine.plugin import AttentionBackend, Device, LinearKernel, Memory, PackedWeight, Recorder, WeightTransfer
from engine_devices._cuda_graphs import GraphRecorder
from engine_devices.cuda import DTYPES


class CUDADevice(Device):
    """Makes GPU ``index`` the process's current one. Attention is the core's Triton pair.

    Raises :class:`engine.errors.UnavailablePlugin` where torch has no CUDA support or there is no such GPU.
    """

    name = "cuda"

    def __init__(self, index: int = 0) -> None:
        if torch.version.cuda is None:
            raise UnavailablePlugin(
                f"The installed torch {torch.__version__} is built without CUDA.", fix="install a CUDA build of torch"
            )
        count = torch.cuda.device_count()
        if index >= count:
            raise UnavailablePlugin(f"GPU {index} was asked for, {count} are visible to torch.", fix="--device cpu")
        self._device = torch.device("cuda", index)
        torch.cuda.set_device(self._device)

    def torch_device(self) -> torch.device:
        """Where tensors live."""
        return self._device

    def memory(self) -> Memory:
        """Total and free bytes now; what torch's allocator holds in reserve counts as used."""
        free, total = torch.cuda.mem_get_info(self._device)
        return Memory(total, free)

    def attention(self) -> AttentionBackend | None:
        """None: the core's built-in Triton attention."""
        return None

    def linear_kernel(self, packed: PackedWeight) -> LinearKernel | None:
        """Triton kernels for quantized layouts; dense weights are torch's."""
        from engine_devices._cuda_linear import linear_kernel

        return linear_kernel(packed)

    def recorder(self) -> Recorder:
        """CUDA graphs."""
        return GraphRecorder(self._device)

    def weight_transfer(self) -> WeightTransfer:
        """Copies from page-locked memory on a stream of its own."""
        from engine_devices._cuda_transfer import StreamTransfer

        return StreamTransfer(self._device)

    def collective_backend(self) -> str:
        """torch.distributed backend between GPUs."""
        return "nccl"

    def dtypes(self) -> tuple[str, ...]:
        """Activation dtypes, best first."""
        return DTYPES

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""
        torch.cuda.synchronize(self._device)

    def describe(self) -> dict[str, str]:
        """What ``engine plan`` shows."""
        return {
            "name": torch.cuda.get_device_name(self._device), "linear": "torch; Triton for quantized weights",
            "attention": "Triton, paged", "decode": "recorded as CUDA graphs",
        }  # fmt: skip

    def close(self) -> None:
        """Give the allocator's reserve back to the driver."""
        torch.cuda.empty_cache()
