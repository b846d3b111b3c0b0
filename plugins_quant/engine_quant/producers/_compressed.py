"""What the checkpoints of compressed-tensors have in common: which layers are taken, groups that fit, the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.plugin import LinearShape, ProducedWeight

from ._ends import EndsProducer

if TYPE_CHECKING:
    from torch import Tensor

#: Group sizes that are chosen from, the usual one first.
_GROUPS = (128, 64, 32)
PACKED = "pack-quantized"


class CompressedProducer(EndsProducer):
    """Subclasses say ``format``, ``weights`` and ``inputs`` as ``config_groups`` spells them."""

    format = ""
    weights: dict[str, Any]
    inputs: dict[str, Any] | None = None

    def round_end(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the base."""
        from ._words import rounded_words

        return rounded_words(layer, weight, bits=8, group=0, search=False)

    def quantization_config(self, quantized: Sequence[LinearShape], kept: Sequence[str]) -> dict[str, Any]:
        """The class of linear layers, the others by their names, less what was kept."""
        groups = {"group_0": {"targets": ["Linear"], "weights": self.weights, "input_activations": self.inputs, "format": self.format}}
        apart = [layer.name for layer in quantized if self.apart(layer)]
        alike = [layer.name for layer in quantized if layer.role == "embedding" and not self.apart(layer)]
        for names, weights, format in ((apart, weights_of(8, "int", 0), PACKED), (alike, self.weights, self.format)):
            if names:
                # What an embedding gets is ids.
                groups["group_1"] = {"targets": names, "weights": weights, "input_activations": None, "format": format}
        formats = {group["format"] for group in groups.values()}
        return {
            "quant_method": "compressed-tensors", "format": "mixed-precision" if len(formats) > 1 else self.format,
            "quantization_status": "compressed",
            "config_groups": {key: {**group, "output_activations": None} for key, group in groups.items()}, "ignore": list(kept),
            "kv_cache_scheme": None,
        }  # fmt: skip


def weights_of(bits: int, kind: str, group: int) -> dict[str, Any]:
    """The scheme of weights: a scale per ``group`` inputs, or per output where that is 0."""
    return {
        "num_bits": bits, "type": kind, "symmetric": True, "strategy": "group" if group else "channel",
        "group_size": group or None, "dynamic": False, "observer": "minmax", "actorder": None, "block_structure": None,
    }  # fmt: skip


def group_of(asked: int | None, layers: Sequence[LinearShape]) -> int:
    """Inputs per scale: what was asked, else the largest usual size that divides the inputs of all layers, else 0: one scale per output.

    Raises :class:`ConfigError` naming a layer that the asked size does not divide.
    """
    if asked is None:
        return next((group for group in _GROUPS if all(layer.inputs % group == 0 for layer in layers)), 0)
    if asked < 0:
        raise ConfigError(f"--group-size {asked}: must be 0 (one scale per output) or above.", fix=f"--group-size {_GROUPS[0]}")
    wrong = next((layer for layer in layers if asked and layer.inputs % asked), None)
    if wrong is not None:
        fitting = group_of(None, layers)
        raise ConfigError(
            f"--group-size {asked} does not divide the {wrong.inputs} inputs of {wrong.name!r}.", fix=f"--group-size {fitting}"
        )
    return asked
