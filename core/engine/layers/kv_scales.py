"""Scales of an 8-bit KV cache: the names under which checkpoints keep them, and how attention layers take them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from engine.errors import ModelFileError

#: Ends of names: of the layer itself or its attention, of ModelOpt (k_proj.k_scale), of compressed-tensors and Quark (output_scale),
#: and the older single one. Scales of queries and probabilities are known, and nothing here needs them.
_USUAL = {
    ".k_scale": "k_scale", ".v_scale": "v_scale", ".k_proj.output_scale": "k_scale", ".v_proj.output_scale": "v_scale",
    ".kv_scale": "kv_scale", ".q_scale": "", ".prob_scale": "", ".q_proj.output_scale": "",
}  # fmt: skip
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


class KVScales:
    """Takes the scales out of a checkpoint's tensors. ``suffixes``: further ends of names (:meth:`Quantizer.kv_scale_suffixes`)."""

    def __init__(self, suffixes: Mapping[str, str] | None = None) -> None:
        self._ends = _USUAL | dict(suffixes or {})
        #: By layer: the scales of K and of V, where the checkpoint has them.
        self.found: dict[int, dict[str, float]] = {}

    def kind(self, name: str) -> str | None:
        """What scale a tensor is, "" for one that is not needed, None where it is none."""
        return next((kind for end, kind in self._ends.items() if name.endswith(end)), None)

    def filtered(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The other tensors; scales are kept. Raises :class:`ModelFileError` for a scale that is not one positive number."""
        for name, tensor in tensors:
            kind = self.kind(name)
            layer = _LAYER.search(name)
            if kind is None or layer is None:
                yield name, tensor
            elif kind:
                scale = _number(name, tensor)
                for each in ("k_scale", "v_scale") if kind == "kv_scale" else (kind,):
                    self.found.setdefault(int(layer.group(1)), {})[each] = scale


def _number(name: str, tensor: Tensor) -> float:
    """−1, which some producers write where they did not calibrate, stands for 1."""
    value = float(tensor) if tensor.numel() == 1 and tensor.is_floating_point() else math.nan
    if value == -1.0:
        return 1.0
    if not 0 < value < math.inf:
        raise ModelFileError(f"Tensor {name!r} is {tensor.dtype} {list(tensor.shape)}; a scale of the KV cache is one positive number.")
    return value
