"""Weights from page-locked host memory, on a stream beside the one that computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.errors import MemoryShortage
from engine.plugin import WeightTransfer

if TYPE_CHECKING:
    from torch import Tensor


class StreamTransfer(WeightTransfer):
    """Each transfer waits for what the current stream was given before it, and leaves an event that later work waits for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_memory(self, size: int) -> Tensor:
        """Page-locked."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            raise MemoryShortage(
                f"{size >> 20} MiB of host memory cannot be page-locked for weights: {error}.", fix="a smaller --cpu-offload-gb"
            ) from error

    def begin(self, target: Tensor, source: Tensor) -> Any:
        """The event of the copy's end."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return done

    def wait(self, transfer: Any) -> None:
        """The current stream waits for the event."""
        torch.cuda.current_stream(self._device).wait_event(transfer)
