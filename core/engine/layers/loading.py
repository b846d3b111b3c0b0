"""How checkpoint tensors find their layers: slots by name, and the errors of a checkpoint that does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from engine.errors import ModelFileError


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where one checkpoint tensor goes.

    ``name`` and ``shape`` are those in the checkpoint (whole tensor; None where ``take`` itself checks). ``take`` copies this rank's part.
    ``optional``: its absence is no fault. ``fills``: other slots that it makes unnecessary (a fused spelling of them).
    """

    name: str
    shape: tuple[int, ...] | None
    take: Callable[[Tensor], None]
    optional: bool = False
    fills: tuple[str, ...] = ()


class CheckpointLayer(nn.Module):
    """A layer that owns parameters of a checkpoint. Order of use: ``slots``, each slot's ``take``, ``finish``, then forward."""

    def slots(self) -> Iterable[Slot]:
        """The tensors that this layer wants, by their names in the checkpoint."""
        raise NotImplementedError

    def finish(self) -> None:
        """After loading: pack weights, build kernels."""


def copy_slot(name: str, target: Tensor, *, optional: bool = False) -> Slot:
    """A slot for a tensor that is copied whole."""

    def take(tensor: Tensor) -> None:
        target.copy_(tensor)

    return Slot(name, tuple(target.shape), take, optional=optional)


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
    leftovers: tuple[str, ...] = (r".*\.rotary_emb\.inv_freq",)
    elsewhere: tuple[str, ...] = ()

    def resolve(self, name: str, table: dict[str, Slot]) -> Slot | None:
        """The slot for a checkpoint name; None where the tensor is not needed here. Raises for unknown names."""
        renamed = name
        for pattern, replacement in self.renames:
            renamed = re.sub(pattern, replacement, renamed)
        for candidate in (renamed, self.base_prefix + renamed):
            if candidate in table:
                return table[candidate]
        if any(re.fullmatch(pattern, renamed) for pattern in self.leftovers):
            return None
        if any(c.startswith(self.elsewhere) for c in (renamed, self.base_prefix + renamed)):
            return None
        near = difflib.get_close_matches(renamed, table, n=1, cutoff=0.0)
        hint = f"; the nearest known tensor is {near[0]!r}" if near else ""
        raise ModelFileError(
            f"The checkpoint has a tensor {name!r} that this architecture does not know{hint}.",
            fix="check that config.json and the weight files belong together",
        )


def load_tensors(root: nn.Module, tensors: Iterable[tuple[str, Tensor]], rules: NameRules) -> set[str]:
    """Give each tensor to its slot; returns the names of required slots that stayed empty."""
    table = collect_slots(root)
    filled: set[str] = set()
    for name, tensor in tensors:
        slot = rules.resolve(name, table)
        if slot is None:
            continue
        if slot.shape is not None and tuple(tensor.shape) != slot.shape:
            raise ModelFileError(
                f"Tensor {name!r} has shape {list(tensor.shape)}, but the configuration asks for {list(slot.shape)}.",
                fix="check that config.json and the weight files belong together",
            )
        slot.take(tensor)
        filled.add(slot.name)
        filled.update(slot.fills)
    return {name for name, slot in table.items() if not slot.optional} - filled
