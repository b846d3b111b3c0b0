"""Steps recorded as CUDA graphs: one capture per batch shape, all in one memory pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from engine.plugin import Recorder, Replay

if TYPE_CHECKING:
    from torch import Tensor

#: Runs before a capture: kernels get compiled and cuBLAS makes its workspaces, neither of which may be captured.
WARM_UPS = 2


class GraphReplay(Replay):
    """One captured graph and the buffers that its results are always in."""

    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: tuple[Tensor, ...]) -> None:
        self._graph = graph
        self._outputs = outputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The buffers of the capture."""
        return self._outputs

    def run(self) -> tuple[Tensor, ...]:
        """Launch the graph on the current stream. The next run of any graph of the pool overwrites the results."""
        self._graph.replay()
        return self._outputs


class GraphRecorder(Recorder):
    """Captures on a stream of its own. Graphs share one memory pool, so that many batch shapes cost little more than
    the largest; therefore an output must be read before another recorded step runs.

    Record the largest shape first: the later ones then fit into memory that the pool has already.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, body: Callable[[], tuple[Tensor, ...]]) -> GraphReplay:
        """Run ``body`` three times (twice plainly, once into the graph, which is launched when it is replayed).

        ``body`` must not wait for the device, and must give the same result on the same buffers each time.
        """
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    body()
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                outputs = body()
            torch.cuda.current_stream().wait_stream(self._stream)
        return GraphReplay(graph, outputs)
