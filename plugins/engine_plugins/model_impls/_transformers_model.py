"""A transformers model as an engine model: packed rows, paged attention, proven against its own attention when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from engine.errors import ModelFileError
from engine.plugin import AttentionBatch, Batch, Model, ModelContext
from engine_plugins.model_impls._paged_attention import INTERFACE, PagedCalls, register

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: The check after loading: two sequences of eight tokens, fed side by side in two steps of these sizes.
CHECK_IDS = ((3, 4, 5, 6, 7, 8, 9, 10), (11, 7, 3, 12, 5, 13, 9, 14))
CHECK_STEPS = ((5, 3), (3, 5))
CHECK_BLOCK = 16
#: Rounding moves logits a little; below this cosine two rows are not the same computation.
CHECK_COSINE = 0.9


class TransformersModel(Model):
    """One rank only. The class is transformers' own; so is the reading of checkpoint names (renamed and fused parameters)."""

    recordable = False

    def __init__(self, context: ModelContext, config: PreTrainedConfig, network: type[PreTrainedModel]) -> None:
        if context.parallel.size > 1 or context.parallel.stages > 1:
            raise ModelFileError("--model-impl transformers runs on one worker.", fix="--tensor-parallel-size 1")
        self.context = context
        self.config = config
        self.network = network
        self.calls = PagedCalls(context)
        self.model: PreTrainedModel | None = None

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
        """All tensors at once, since transformers joins some; memory-mapped tensors cost nothing while they wait."""
        from transformers.utils import logging

        register()
        bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            model, report = self.network.from_pretrained(
                None, config=self.config, state_dict=dict(tensors), attn_implementation=INTERFACE,
                dtype=self.context.dtype, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
        self._refuse(report)
        self.model = model.eval().requires_grad_(False).to(self.context.device)
        self.calls.connect(self.model)
        fix_frequencies(self.model, self.context.longest)
        return set(report["missing_keys"])

    def finish(self) -> None:
        """Prove that rows in chunks over pages give the logits that the class's own attention gives for them all at once."""
        with torch.inference_mode():
            self._check()

    def forward(self, batch: Batch) -> Tensor:
        """[T, hidden] after the final norm."""
        model = self._loaded()
        rows: dict[str, Tensor] = {"input_ids": batch.token_ids.unsqueeze(0)}
        if batch.embeddings is not None and batch.embedding_mask is not None:
            embedded = self.embed(batch.token_ids)
            mixed = torch.where(batch.embedding_mask.unsqueeze(-1), batch.embeddings.to(embedded.dtype), embedded)
            rows = {"inputs_embeds": mixed.unsqueeze(0)}
        with self.calls.running(batch):
            output = model.base_model(**rows, position_ids=batch.positions.unsqueeze(0), use_cache=False)
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """The class's own head with its scales and caps: its forward pass runs on a trunk that hands ``hidden`` through."""
        model = self._loaded()
        name, trunk = model.base_model_prefix, model.base_model
        setattr(model, name, _Through(hidden.unsqueeze(0)))
        try:
            rows = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            return model(input_ids=rows, use_cache=False).logits[0]  # type: ignore[no-any-return]
        finally:
            setattr(model, name, trunk)

    def embed(self, token_ids: Tensor) -> Tensor:
        """[T, hidden]."""
        return self._loaded().get_input_embeddings()(token_ids)  # type: ignore[no-any-return]

    def _loaded(self) -> PreTrainedModel:
        if self.model is None:
            raise RuntimeError("the model is used before load()")
        return self.model

    def _refuse(self, report: dict[str, Any]) -> None:
        name = self.network.__name__
        for key in sorted(report["unexpected_keys"]):
            raise ModelFileError(f"The checkpoint has a tensor {key!r} that transformers' {name} does not know.")
        for key, found, wanted in sorted(report["mismatched_keys"]):
            raise ModelFileError(f"Tensor {key!r} has shape {list(found)}, but the configuration asks for {list(wanted)}.")
        for message in report["error_msgs"]:
            raise ModelFileError(f"transformers' {name} cannot be loaded: {message}")

    def _check(self) -> None:
        model = self._loaded()
        caches = self.calls.small_caches(len(CHECK_IDS), CHECK_BLOCK)
        ids = torch.tensor(CHECK_IDS, device=self.context.device) % self.context.info.vocab_size
        rows: list[list[Tensor]] = [[] for _ in CHECK_IDS]
        starts = [0 for _ in CHECK_IDS]
        for sizes in CHECK_STEPS:
            logits = self.logits(self.forward(_packed(ids, starts, sizes, caches)))
            self.calls.check_layers()
            for index, part in enumerate(torch.split(logits, list(sizes))):
                rows[index].append(part)
                starts[index] += sizes[index]
        model.set_attn_implementation("eager")
        try:
            truth = [model(input_ids=row.unsqueeze(0), use_cache=False).logits[0].float() for row in ids]
        finally:
            model.set_attn_implementation(INTERFACE)
        self._compare(torch.cat([torch.cat(parts) for parts in rows]).float(), torch.cat(truth))

    def _compare(self, got: Tensor, truth: Tensor) -> None:
        close = nn.functional.cosine_similarity(got, truth, dim=-1).min().item()
        if truth.isfinite().all() and close < CHECK_COSINE:
            raise ModelFileError(
                f"transformers' {self.network.__name__} gives other logits on the paged cache (cosine {close:.3f}): "
                "it keeps state beside attention, or attends in a way that its attention interface does not show.",
                fix="an architecture with a native implementation (engine plugins list)",
            )


class _Handed(BaseModelOutputWithPast):  # type: ignore[misc]
    """A trunk's output of which only the hidden states exist; heads look for router logits, cross attentions and more."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _Through(nn.Module):
    """A trunk that returns what was computed before."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    @property
    def decoder(self) -> _Through:
        """Some heads call the decoder within the trunk."""
        return self

    def forward(self, *_: Any, **__: Any) -> _Handed:
        return _Handed(last_hidden_state=self.hidden)


def _packed(ids: Tensor, starts: list[int], sizes: tuple[int, ...], caches: list[Tensor]) -> Batch:
    """Rows [start, start + size) of each sequence of ``ids``, sequence b on page b."""
    device = ids.device
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    spans = [torch.arange(start, end, device=device) for start, end in zip(starts, ends, strict=True)]
    query_start = torch.tensor([0, *sizes], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    attention = AttentionBatch(
        query_start=query_start,
        seq_lens=torch.tensor(ends, dtype=torch.int32, device=device),
        block_table=torch.arange(len(sizes), dtype=torch.int32, device=device).unsqueeze(1),
        slots=torch.cat([span + page * CHECK_BLOCK for page, span in enumerate(spans)]),
        block_size=CHECK_BLOCK,
        max_query_len=max(sizes),
        max_seq_len=max(ends),
        host=(sizes, tuple(ends)),
    )
    token_ids = torch.cat([row[span] for row, span in zip(ids, spans, strict=True)])
    return Batch(token_ids=token_ids, positions=torch.cat(spans), attention=attention, caches=caches)


def fix_frequencies(model: nn.Module, longest: int) -> None:
    """Rotary frequencies that would follow the batch's longest row (dynamic, longrope) are fixed for ``longest``."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for module in model.modules():
        kind: Any = getattr(module, "rope_type", None)
        if isinstance(kind, dict) and {"dynamic", "longrope"} & set(kind.values()):
            raise ModelFileError("--model-impl transformers does not serve length-dependent rope per layer type.")
        if kind in ("dynamic", "longrope"):
            fixed: Any = module
            frequencies, fixed.attention_scaling = ROPE_INIT_FUNCTIONS[kind](fixed.config, fixed.inv_freq.device, seq_len=longest)
            fixed.inv_freq.copy_(frequencies)
            fixed.rope_type = "default"
