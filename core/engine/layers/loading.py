"""How checkpoint tensors find their layers: slots by name, and the errors of a checkpoint that does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from engine.errors import ModelFileError
from engine.footprint import trim

#: Bytes of raw tensors after which freed memory is given back to the system.
_TRIM_EVERY = 32 << 20
#: Bytes of a tensor that are copied before a thread would have been woken.
_SMALL = 64 << 10


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where one checkpoint tensor goes.

    ``name`` and ``shape`` are those in the checkpoint (whole tensor; None where ``take`` itself checks). ``take`` copies this rank's part.
    ``optional``: its absence is no fault; ``needed`` False: the layer may be finished without it. ``fills``: other slots that it makes
    unnecessary (a fused spelling of them).
    ``quick``: ``take`` copies next to nothing, so that no thread is worth it (and no raw tensor waits for one). ``keeps``: so it is
    with tensors of that dtype.
    """

    name: str
    shape: tuple[int, ...] | None
    take: Callable[[Tensor], None]
    optional: bool = False
    fills: tuple[str, ...] = ()
    quick: bool = False
    keeps: torch.dtype | None = None
    needed: bool = True


class CheckpointLayer(nn.Module):
    """A layer that owns parameters of a checkpoint. Order of use: ``slots``, each slot's ``take``, ``finish``, then forward."""

    #: Whether ``finish`` was called.
    finished: bool = False

    def slots(self) -> Iterable[Slot]:
        """The tensors that this layer wants, by their names in the checkpoint."""
        raise NotImplementedError

    def finish(self) -> None:
        """After loading: pack weights, build kernels."""

    def finish_once(self) -> None:
        """Finish, unless that was done as soon as the layer's tensors had arrived."""
        if not self.finished:
            self.finished = True
            self.finish()


def copy_slot(name: str, target: Tensor, *, optional: bool = False) -> Slot:
    """A slot for a tensor that is copied whole."""

    def take(tensor: Tensor) -> None:
        target.copy_(tensor)

    return Slot(name, tuple(target.shape), take, optional=optional, quick=target.nbytes <= _SMALL)


def zero_slot(name: str) -> Slot:
    """A slot for a bias that some producers of quantized layers write though the architecture has none: it must be zero."""

    def take(tensor: Tensor) -> None:
        if bool(tensor.count_nonzero()):
            raise ModelFileError(f"The checkpoint has a bias {name!r} that is not zero, and this architecture has none.")

    return Slot(name, None, take, optional=True, quick=True, needed=False)


def collect_slots(root: nn.Module) -> dict[str, Slot]:
    """The slots of every layer under ``root`` by name; two layers never want the same tensor."""
    table: dict[str, Slot] = {}
    for layer in checkpoint_layers(root):
        for slot in layer.slots():
            if slot.name in table:
                raise ValueError(f"two layers want the tensor {slot.name!r}")
            table[slot.name] = slot
    return table


def checkpoint_layers(root: nn.Module) -> Iterator[CheckpointLayer]:
    """The layers under ``root`` that own parameters."""
    for module in root.modules():
        if isinstance(module, CheckpointLayer):
            yield module


@dataclass(frozen=True, slots=True)
class NameRules:
    """What a model says of checkpoint names beyond its slots.

    ``base_prefix`` (``model.``) is missing where only the network's trunk was saved. ``renames``: (pattern, replacement) pairs
    applied in order. ``leftovers``: patterns of tensors that are known and not needed. ``elsewhere``: prefixes that
    other pipeline stages hold.
    """

    base_prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    leftovers: tuple[str, ...] = (r".*\.rotary_emb\.inv_freq", r".*\._extra_state", r".*\.input_scale_ub")
    elsewhere: tuple[str, ...] = ()

    def spellings(self, name: str) -> tuple[str, str]:
        """What a checkpoint name may mean in the model: renamed, without and with the prefix of the trunk."""
        renamed = name
        for pattern, replacement in self.renames:
            renamed = re.sub(pattern, replacement, renamed)
        return renamed, self.base_prefix + renamed

    def resolve(self, name: str, table: dict[str, Slot]) -> Slot | None:
        """The slot for a checkpoint name; None where the tensor is not needed here. Raises for unknown names."""
        renamed, below = self.spellings(name)
        for candidate in (renamed, below):
            if candidate in table:
                return table[candidate]
        if any(re.fullmatch(pattern, renamed) for pattern in self.leftovers):
            return None
        if any(c.startswith(self.elsewhere) for c in (renamed, below)):
            return None
        near = difflib.get_close_matches(renamed, table, n=1, cutoff=0.0)
        hint = f"; the nearest known tensor is {near[0]!r}" if near else ""
        raise ModelFileError(
            f"The checkpoint has a tensor {name!r} that this architecture does not know{hint}.",
            fix="check that config.json and the weight files belong together",
        )


def load_tensors(
    root: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    rules: NameRules,
    *,
    threads: int = 1,
    expected: Collection[str] | None = None,
) -> set[str]:
    """Give each tensor to its slot and finish layers whose tensors are complete; returns the names of required slots that stayed empty.

    ``threads`` take tensors at the same time, at most twice as many are held: writing host memory for the first time is page
    faults, with which one core is busy far below the memory's speed. Layers are finished by the calling thread.
    ``expected``: see :class:`~engine.layers.arrivals.Arrivals`.
    """
    from engine.layers.arrivals import Arrivals

    arrivals = Arrivals(root, rules, expected)
    passed = 0
    with _Takers(threads) as takers:
        for name, tensor in tensors:
            slot = rules.resolve(name, arrivals.table)
            if slot is None:
                continue
            check_tensor(name, tensor, slot)
            passed += tensor.nbytes
            arrivals.arrived(takers.take(slot, tensor))
            # Raw tensors and what is packed of them lie in turns, and the allocator keeps the gaps.
            if passed > _TRIM_EVERY:
                trim()
                passed = 0
        arrivals.arrived(takers.drain())
    return arrivals.missing()


def check_tensor(name: str, tensor: Tensor, slot: Slot) -> None:
    """Refuse a tensor of another shape or kind than the slot's; slots without a shape hold packed data and check it themselves."""
    if slot.shape is None:
        return
    if tuple(tensor.shape) != slot.shape:
        raise ModelFileError(
            f"Tensor {name!r} has shape {list(tensor.shape)}, but the configuration asks for {list(slot.shape)}.",
            fix="check that config.json and the weight files belong together",
        )
    if not tensor.is_floating_point():
        raise ModelFileError(
            f"Tensor {name!r} holds {str(tensor.dtype).removeprefix('torch.')} numbers, but an unquantized layer needs floats.",
            fix="a checkpoint whose config.json names its quantization_config",
        )


class _Takers:
    """Threads that run slots' ``take``; the first failure is raised by the next call. Each call gives back the slots that are done."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._most = 2 * threads
        self._running: dict[Future[None], Slot] = {}
        self._inference = torch.is_inference_mode_enabled()

    def take(self, slot: Slot, tensor: Tensor) -> list[Slot]:
        """Have it taken; waits while enough tensors are under way."""
        if self._pool is None or slot.quick or tensor.dtype == slot.keeps:
            slot.take(tensor)
            return [slot]
        self._running[self._pool.submit(self._take, slot, tensor)] = slot
        if len(self._running) >= self._most:
            wait(self._running, return_when=FIRST_COMPLETED)
        return self._done()

    def drain(self) -> list[Slot]:
        """Wait for all of them."""
        wait(self._running)
        return self._done()

    def _take(self, slot: Slot, tensor: Tensor) -> None:
        # Both modes belong to the thread.
        with torch.inference_mode(self._inference), torch.no_grad():
            slot.take(tensor)

    def _done(self) -> list[Slot]:
        done = [future for future in self._running if future.done()]
        slots = [self._running.pop(future) for future in done]
        for future in done:
            future.result()
        return slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
