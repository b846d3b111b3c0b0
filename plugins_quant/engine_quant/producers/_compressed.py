"""What the checkpoints of compressed-tensors have in common: which layers are taken, groups that fit, the configuration. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import ConfigError
from engine.plugin import LinearShape, Producer, SourceModel

#: Group sizes that are chosen from, the usual one first.
_GROUPS = (128, 64, 32)
_ENDS = ("embedding", "head")


class CompressedProducer(Producer):
    """``--include-head`` adds the embedding and the head, which are kept as they are without it.

    Subclasses say ``format``, ``weights`` and ``inputs`` as ``config_groups`` spells them.
    """

    format = ""
    weights: dict[str, Any]
    inputs: dict[str, Any] | None = None

    def __init__(self, model: SourceModel) -> None:
        self.ends = bool(model.ends)

    def takes(self, layer: LinearShape) -> bool:
        """See the contract."""
        return layer.role == "linear" or (self.ends and layer.role in _ENDS)

    def warnings(self) -> Sequence[str]:
        """See the contract."""
        return ("The engine reads a quantized embedding, transformers 5 does not; leave --include-head out for it.",) if self.ends else ()

    def quantization_config(self, quantized: Sequence[LinearShape], kept: Sequence[str]) -> dict[str, Any]:
        """The class of linear layers, the embedding by its name, less what was kept."""
        embeddings = [layer.name for layer in quantized if layer.role == "embedding"]
        common = {"weights": self.weights, "output_activations": None}
        groups = {"group_0": {"targets": ["Linear"], **common, "input_activations": self.inputs}}
        if embeddings:
            # What an embedding gets is ids.
            groups["group_1"] = {"targets": embeddings, **common, "input_activations": None}
        return {
            "quant_method": "compressed-tensors", "format": self.format, "quantization_status": "compressed",
            "config_groups": groups, "ignore": list(kept), "kv_cache_scheme": None,
        }  # fmt: skip


def weights_of(bits: int, kind: str, group: int) -> dict[str, Any]:
    """The scheme of weights: a scale per ``group`` inputs, or per output where that is 0."""
    return {
        "num_bits": bits, "type": kind, "symmetric": True, "strategy": "group" if group else "channel",
        "group_size": group or None, "dynamic": False, "observer": "minmax", "actorder": None, "block_structure": None,
    }  # fmt: skip


def group_of(model: SourceModel, asked: int | None, takes: Sequence[LinearShape]) -> int:
    """Inputs per scale: what was asked, else the largest usual size that divides the inputs of all layers, else 0: one scale per output.

    Raises :class:`ConfigError` naming a layer that the asked size does not divide.
    """
    if asked is None:
        return next((group for group in _GROUPS if all(layer.inputs % group == 0 for layer in takes)), 0)
    if asked < 0:
        raise ConfigError(f"--group-size {asked}: must be 0 (one scale per output) or above.", fix=f"--group-size {_GROUPS[0]}")
    wrong = next((layer for layer in takes if asked and layer.inputs % asked), None)
    if wrong is not None:
        fitting = group_of(model, None, takes)
        raise ConfigError(
            f"--group-size {asked} does not divide the {wrong.inputs} inputs of {wrong.name!r}.", fix=f"--group-size {fitting}"
        )
    return asked
