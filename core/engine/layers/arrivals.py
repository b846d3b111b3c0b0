"""Which tensors each layer still waits for: a layer is finished as soon as all of its have arrived."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from engine.layers.loading import CheckpointLayer, NameRules, Slot, checkpoint_layers


class Arrivals:
    """Slots by name, and the layers that wait for them.

    ``expected``: the names of all tensors that will come, where they are known beforehand: a layer then waits for those of its optional
    tensors that are among them. Where they are not known (None), a layer whose optional tensors did not come is not finished here.
    Finishing early is what keeps loading small: one layer's raw tensors are held, not the whole checkpoint's.
    """

    def __init__(self, root: nn.Module, rules: NameRules, expected: Collection[str] | None = None) -> None:
        self.table: dict[str, Slot] = {}
        self.filled: set[str] = set()
        self._owner: dict[str, CheckpointLayer] = {}
        self._waiting: dict[CheckpointLayer, set[str]] = {}
        for layer in checkpoint_layers(root):
            for slot in layer.slots():
                if slot.name in self.table:
                    raise ValueError(f"two layers want the tensor {slot.name!r}")
                self.table[slot.name] = slot
                self._owner[slot.name] = layer
        coming = None if expected is None else {found.name for name in expected if (found := rules.resolve(name, self.table))}
        for name, slot in self.table.items():
            if slot.needed and (not slot.optional or coming is None or name in coming):
                self._waiting.setdefault(self._owner[name], set()).add(name)

    def arrived(self, slots: Iterable[Slot]) -> None:
        """Those tensors were taken: finishes the layers that wait for nothing more."""
        for slot in slots:
            for name in (slot.name, *slot.fills):
                self.filled.add(name)
                layer = self._owner[name]
                waiting = self._waiting.get(layer)
                if waiting is None:
                    continue
                waiting.discard(name)
                if not waiting:
                    del self._waiting[layer]
                    layer.finish_once()

    def missing(self) -> set[str]:
        """Names of required tensors that did not come."""
        return {name for name, slot in self.table.items() if not slot.optional} - self.filled
