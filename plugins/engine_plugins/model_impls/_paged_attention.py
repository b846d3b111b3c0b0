"""transformers' attention interface on the engine's pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ModelFileError
from engine.plugin import AttentionSpec, Batch, ModelContext

INTERFACE = "engine_paged"


def register() -> None:
    """Make the interface known to transformers, which keeps such functions by name."""
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, paged_attention)


def paged_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What the layers call: query [1, heads, T, head_dim], key, value [1, kv_heads, T, head_dim] → [1, T, heads, head_dim]."""
    calls = getattr(module, "engine_calls", None)
    if not isinstance(calls, PagedCalls):
        raise ModelFileError(f"{type(module).__name__} attends, but does not say which layer it is.")
    if attention_mask is not None:
        raise ModelFileError(f"{type(module).__name__} attends through a mask of its own, which pages cannot show.")
    return calls.attend(module, query, key, value, options), None


class PagedCalls:
    """The layers' calls: their shape is learned from the first and the same ever after. ``batch``: the step that runs now."""

    def __init__(self, context: ModelContext) -> None:
        self.context = context
        self.specs: dict[int, AttentionSpec] = {}
        self.batch: Batch | None = None

    def connect(self, model: nn.Module) -> None:
        """Give every numbered layer its way here; not all of them hand arguments on to the attention function."""
        for module in model.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.__dict__["engine_calls"] = self

    @contextmanager
    def running(self, batch: Batch) -> Iterator[None]:
        """While a forward pass runs."""
        self.batch = batch
        try:
            yield
        finally:
            self.batch = None

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """One layer's attention."""
        if self.batch is None:
            raise RuntimeError("a layer attends outside a step")
        index, spec = self.layer(module, query, key, options)
        width = value.shape[-1]
        if width < spec.head_dim:
            value = functional.pad(value, (0, spec.head_dim - width))
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        cache, sinks = self.batch.caches[index], options.get("s_aux")
        out = self.context.attention.attend(q, k, v, cache, self.batch.attention, spec, sinks)
        return out[..., :width].contiguous().unsqueeze(0)

    def layer(self, module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> tuple[int, AttentionSpec]:
        """The number and spec of the calling layer."""
        index: Any = module.layer_idx
        if not 0 <= index < len(self.context.info.layers):
            raise ModelFileError(f"{type(module).__name__} calls itself layer {index}, which the configuration lacks.")
        if index not in self.specs:
            self.specs[index] = self._learn(index, module, query, key, options)
        return index, self.specs[index]

    def check_layers(self) -> None:
        """After a forward pass: every layer has attended."""
        silent = [index for index in range(len(self.context.info.layers)) if index not in self.specs]
        if silent:
            raise ModelFileError(f"Layers {silent} of the model do not attend through transformers' attention interface.")

    def small_caches(self, pages: int, block_size: int) -> list[Tensor]:
        """A few pages per layer, for the check after loading."""
        c = self.context
        return [c.attention.allocate(spec, pages, block_size, c.dtype, c.device) for spec in c.info.layers]

    def _learn(self, index: int, module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> AttentionSpec:
        described = self.context.info.layers[index]
        found = (query.shape[1], key.shape[1], query.shape[3])
        stated = (described.num_heads, described.num_kv_heads, described.head_dim)
        if found != stated:
            raise ModelFileError(f"Layer {index} attends with (heads, KV heads, head_dim) {found}, but its configuration says {stated}.")
        if not getattr(module, "is_causal", True):
            raise ModelFileError(f"Layer {index} of the model ({type(module).__name__}) is not causal.")
        scale = options.get("scaling")
        return msgspec.structs.replace(
            described,
            scale=float(scale) if scale is not None else described.head_dim**-0.5,
            window=options.get("sliding_window", described.window),
            soft_cap=options.get("softcap", described.soft_cap),
            sinks=options.get("s_aux") is not None,
        )
