"""A worker's place among the workers: alone, or in a process group of torch.distributed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from engine.errors import ConfigError, WorkerDied
from engine.plugin.contracts.model import Parallel

if TYPE_CHECKING:
    from torch import Tensor

#: Longest a collective may wait. Loading may keep one rank waiting for long; dead and silent workers are noticed by the
#: executor, sooner.
PATIENCE = timedelta(hours=2)


class SingleProcess(Parallel):
    """The only worker: collectives have nothing to do."""

    def all_reduce(self, x: Tensor) -> Tensor:
        """The tensor itself."""
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The tensor itself."""
        return x

    @contextmanager
    def turn(self, _at_once: int | None) -> Iterator[None]:
        """Nothing to take turns with."""
        yield

    def close(self) -> None:
        """Nothing to leave."""


class TorchDistributed(Parallel):
    """One rank of a tensor-parallel group over gloo or nccl; the ranks meet in a file of the directory ``rendezvous``.

    gloo and nccl reduce each element on one rank (ring) or along one tree and hand the result on, so all ranks hold the
    same bits.
    """

    def __init__(self, rank: int, size: int, rendezvous: str, backend: str, device: torch.device) -> None:
        import torch.distributed as dist

        self.rank, self.size = rank, size
        self._dist = dist
        if dist.is_initialized():
            raise ConfigError(
                "This process belongs to a torch.distributed group already.",
                fix="--distributed-executor-backend mp in a process of its own",
            )
        store = dist.FileStore(  # type: ignore[attr-defined]
            os.path.join(rendezvous, "group"), size)
        if sys.platform == "linux":
            # gloo takes the interface of the machine's name otherwise, which may be reachable from outside, or absent.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=PATIENCE,
            device_id=device if backend == "nccl" else None,
        )  # fmt: skip

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over the group, in place where ``x`` is contiguous."""
        x = x.contiguous()
        with lost_peers(self.rank):
            self._dist.all_reduce(x)
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The ranks' tensors side by side along ``dim``."""
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)]
        with lost_peers(self.rank):
            self._dist.all_gather(parts, x)
        return torch.cat(parts, dim)

    @contextmanager
    def turn(self, at_once: int | None) -> Iterator[None]:
        """Let at most ``at_once`` ranks (None: all) run the body at a time; every rank leaves when all have."""
        at_once = at_once or self.size
        for first in range(0, self.size, at_once):
            if first <= self.rank < first + at_once:
                yield
            with lost_peers(self.rank):
                self._dist.barrier()

    def close(self) -> None:
        """Leave the group. May be called twice."""
        if self._dist.is_initialized():
            self._dist.destroy_process_group()


@contextmanager
def lost_peers(rank: int) -> Iterator[None]:
    """A collective that fails means that a peer is gone; say so."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerDied(f"Worker {rank} lost the others in a collective: {str(error).splitlines()[0]}") from error


def join(
    rank: int, size: int, stages: int, rendezvous: str, backend: str, device: torch.device
) -> SingleProcess | TorchDistributed:
    """The group of a worker; blocks until all ``size`` ranks have come. Pipeline stages are refused."""
    if stages > 1:
        raise ConfigError(
            f"--pipeline-parallel-size {stages}: this worker runs all layers itself.", fix="--pipeline-parallel-size 1"
        )
    return SingleProcess() if size == 1 else TorchDistributed(rank, size, rendezvous, backend, device)
