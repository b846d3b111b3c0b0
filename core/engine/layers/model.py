"""The base of native models: loading, pipeline stages, embedding of a step's rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.layers.embedding import LMHead, VocabParallelEmbedding
from engine.layers.kv_scales import KVScales
from engine.layers.linear import Linear
from engine.layers.loading import NameRules, checkpoint_layers, load_tensors
from engine.layers.moe import FusedExperts, SparseMLP
from engine.plugin.contracts.model import Batch, Model, ModelContext, Parallel


def stage_layers(layers: int, parallel: Parallel) -> range:
    """The layers of this pipeline stage: an even split, the remainder to the later stages except the last."""
    share, rest = divmod(layers, parallel.stages)
    counts = [share] * parallel.stages
    for stage in range(parallel.stages - 1 - rest, parallel.stages - 1):
        counts[stage] += 1
    start = sum(counts[: parallel.stage])
    return range(start, start + counts[parallel.stage])


class NativeModel(nn.Module, Model):
    """A network on the engine's layers. A subclass builds its layers, and writes ``forward`` and, where it differs, ``logits``.

    ``embedding`` exists on the first stage (and on the last one where the head is tied), ``head`` on the last.
    """

    embedding: VocabParallelEmbedding | None
    head: LMHead | None
    names = NameRules(base_prefix="model.")
    #: Checkpoint prefixes of the layers, and of what belongs to the first or last pipeline stage.
    layer_prefix = "model.layers."
    end_prefixes: tuple[str, ...] = ("model.embed_tokens.", "model.norm.", "lm_head.")

    def __init__(self, context: ModelContext) -> None:
        super().__init__()
        self.context = context
        self.embedding = None
        self.head = None
        self.expected: Collection[str] | None = None
        self.scales = KVScales(context.quantizer.kv_scale_suffixes() if context.quantizer else None)
        self.layers = stage_layers(len(context.info.layers), context.parallel)
        self.first = context.parallel.first_stage
        self.last = context.parallel.last_stage

    def build_ends(self, embedding: str, head: str, hidden: int, vocab: int, *, bias: bool = False, scale: float | None = None) -> None:
        """The embedding (times ``scale``) and the head under their checkpoint names, where this stage needs them."""
        tied = self.context.info.tied_embeddings
        if self.first or (self.last and tied):
            self.embedding = VocabParallelEmbedding(self.context, embedding, vocab, hidden, scale=scale)
        if self.last:
            self.head = LMHead(self.context, head, hidden, vocab, bias=bias, tied=self.embedding if tied else None)

    def select_in(self, blocks: nn.ModuleList) -> None:
        """Compute the wanted rows alone in the last of ``blocks``, where it says by ``selects`` that it can, and attention can."""
        can = len(blocks) > 0 and bool(getattr(blocks[-1], "selects", False))
        self.selects = self.last and can and self.context.attention.selects

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
        """See :meth:`Model.load`."""
        threads = torch.get_num_threads() if self.context.device.type == "cpu" else 1
        scales, expected = self.scales, self.expected
        if expected is not None:
            expected = {name for name in expected if scales.kind(name) is None}
        with torch.no_grad():
            return load_tensors(self, scales.filtered(tensors), self.name_rules(), threads=threads, expected=expected)

    def expect(self, names: Collection[str]) -> None:
        """See :meth:`Model.expect`."""
        self.expected = names
        rules = self.name_rules()
        known = {spelled for name in names for spelled in rules.spellings(name)}
        for layer in checkpoint_layers(self):
            if isinstance(layer, Linear | FusedExperts):
                layer.take_as_found(known)

    def kv_scales(self) -> Mapping[int, Mapping[str, float]]:
        """See :meth:`Model.kv_scales`."""
        return self.scales.found

    def name_rules(self) -> NameRules:
        """The family's rules, and what other pipeline stages and a tied head leave over."""
        rules = self.names
        if self.head is not None and self.head.tied:
            rules = replace(rules, leftovers=(*rules.leftovers, re.escape(f"{self.head.shape.name}.weight")))
        if self.context.parallel.stages > 1:
            others = (i for i in range(len(self.context.info.layers)) if i not in self.layers)
            rules = replace(rules, elsewhere=(*(f"{self.layer_prefix}{i}." for i in others), *self.end_prefixes))
        return rules

    def finish(self) -> None:
        """Pack the weights and make the kernels of layers that were not finished when their tensors had arrived."""
        for layer in checkpoint_layers(self):
            layer.finish_once()
        mixtures = [module.settle() for module in self.modules() if isinstance(module, SparseMLP)]
        self.recordable = self.recordable and all(mixtures)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings [T, hidden], as the first layer receives them."""
        if self.embedding is None:
            raise RuntimeError("this pipeline stage does not embed tokens")
        return self.embedding(token_ids)  # type: ignore[no-any-return]

    def enter(self, batch: Batch) -> Tensor:
        """What the stage's first layer receives: token embeddings with replaced rows, or the previous stage's output."""
        if batch.hidden is not None:
            return batch.hidden
        rows = self.embed(batch.token_ids)
        if batch.embeddings is not None and batch.embedding_mask is not None:
            rows = torch.where(batch.embedding_mask.unsqueeze(-1), batch.embeddings.to(rows.dtype), rows)
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] → [rows, vocab]."""
        if self.head is None:
            raise RuntimeError("this pipeline stage does not compute logits")
        return self.head(hidden)  # type: ignore[no-any-return]
