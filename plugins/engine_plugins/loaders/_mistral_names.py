"""From the tensor names of Mistral's own checkpoints to those of the converted ones, rotary order included.

The names are those of mistral-inference's ``Transformer``; older Mixtral releases keep the experts of a layer in one tensor.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import AttentionSpec, ModelInfo, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "feed_forward.gate": "block_sparse_moe.gate", "block_sparse_moe.gate": "block_sparse_moe.gate",
}  # fmt: skip
#: Suffixes of fp8 checkpoints: the scale of the weight, and the static one of the activations.
_SUFFIXES = {"weight": "weight", "bias": "bias", "qscale_weight": "weight_scale", "qscale_act": "input_scale"}
_LAYER_NAME = re.compile(r"layers\.(\d+)\.(.+)\.(\w+)")
_EXPERT = re.compile(r"(?:feed_forward|block_sparse_moe)\.experts\.(\d+)\.(w[123])")
_ALL_EXPERTS = re.compile(r"layers\.(\d+)\.block_sparse_moe\.(w[123])")


class MistralNames:
    """Renames tensors of one model; ``info`` has the heads whose rotary order differs."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info

    def describe(self, found: TensorInfo) -> list[TensorInfo]:
        """The converted tensors that one original gives: usually one, one per expert where they are stored together."""
        import msgspec

        together = _ALL_EXPERTS.fullmatch(found.name)
        if together is None:
            return [msgspec.structs.replace(found, name=self.rename(found.name))]
        count = self._experts(found.name, found.shape)
        shape = self._expert_shape(together[2], found.shape, count)
        return [
            msgspec.structs.replace(found, name=_expert_name(together, number), shape=shape, nbytes=found.nbytes // count)
            for number in range(count)
        ]

    def convert(self, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """As :meth:`describe`, with the tensors; ``wq`` and ``wk`` come in the order in which halves of a head rotate."""
        together = _ALL_EXPERTS.fullmatch(name)
        if together is not None:
            parts = tensor.chunk(self._experts(name, tuple(tensor.shape)))
            # the last matrix is kept the other way round, so that all three are [experts · inner, hidden]
            return [(_expert_name(together, i), part.t() if together[2] == "w2" else part) for i, part in enumerate(parts)]
        heads = self._rotated_heads(name)
        return [(self.rename(name), tensor if heads is None else _in_halves(name, tensor, heads, self._spec().head_dim))]

    def rename(self, name: str) -> str:
        """The converted name. Raises :class:`ModelFileError` for a name that Mistral's checkpoints do not have."""
        match = _LAYER_NAME.fullmatch(name)
        stem, _, suffix = name.rpartition(".")
        if match is None:
            if stem in _TOP and suffix in _SUFFIXES:
                return f"{_TOP[stem]}.{_SUFFIXES[suffix]}"
            raise _unknown(name)
        layer, stem, suffix = match.groups()
        expert = _EXPERT.fullmatch(stem)
        target = f"block_sparse_moe.experts.{expert[1]}.{expert[2]}" if expert else _LAYER.get(stem)
        if target is None or suffix not in _SUFFIXES:
            raise _unknown(name)
        return f"model.layers.{layer}.{target}.{_SUFFIXES[suffix]}"

    def _spec(self) -> AttentionSpec:
        return self._info.layers[0]

    def _rotated_heads(self, name: str) -> int | None:
        if name.endswith((".attention.wq.weight", ".attention.wq.bias")):
            return self._spec().num_heads
        if name.endswith((".attention.wk.weight", ".attention.wk.bias")):
            return self._spec().num_kv_heads
        return None

    def _experts(self, name: str, shape: tuple[int, ...]) -> int:
        count = self._info.num_experts
        if not count or len(shape) != 2 or shape[0] % count:
            raise ModelFileError(
                f"Tensor {name!r} has shape {list(shape)}, but the configuration asks for the rows of {count} experts.",
                fix="check that params.json and the weight files belong together",
            )
        return count

    @staticmethod
    def _expert_shape(matrix: str, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
        rows = shape[0] // count
        return (shape[1], rows) if matrix == "w2" else (rows, shape[1])


def _expert_name(match: re.Match[str], number: int) -> str:
    return f"model.layers.{match[1]}.block_sparse_moe.experts.{number}.{match[2]}.weight"


def _in_halves(name: str, tensor: Tensor, heads: int, head_dim: int) -> Tensor:
    """Rows of each head from neighbours that rotate together (0 1, 2 3 …) to halves that do (0 2 …, 1 3 …)."""
    if tensor.shape[0] != heads * head_dim:
        raise ModelFileError(
            f"Tensor {name!r} has shape {list(tensor.shape)}, but the configuration asks for {heads * head_dim} rows "
            f"({heads} heads of {head_dim}).",
            fix="check that params.json and the weight files belong together",
        )
    pairs = tensor.reshape(heads, head_dim // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _unknown(name: str) -> ModelFileError:
    return ModelFileError(
        f"The checkpoint has a tensor {name!r}, which is no name of Mistral's own checkpoints "
        "(layers.N.attention.wq.weight, tok_embeddings.weight, …).",
        fix="--load-format safetensors for converted names",
    )
