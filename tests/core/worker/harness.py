"""A tiny checkpoint, an engine configuration for it, and a driver that steps a worker without the scheduler."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.config import (
    CacheConfig,
    EngineConfig,
    LoadConfig,
    ModelConfig,
    ParallelConfig,
    RunConfig,
    SchedulerConfig,
    ServerConfig,
)
from engine.plugin import Checkpoint, Choice, DeviceFacts, SamplingParams
from engine.plugin.host import load
from engine.plugin.kinds import MODEL
from engine.plugin.step import NewSequence, SequenceResult, Step, StepResult, Work

if TYPE_CHECKING:
    from engine.worker.worker import LocalWorker

MODULES = {
    "device": "engine_devices.cpu",
    "loader": "engine_plugins.loaders.safetensors",
    "model": "engine_plugins.models.llama",
}


def choice(kind: str, module: str) -> Choice:
    name = module.rpartition(".")[2]
    return Choice(kind=kind, name=name, module=module, distribution="engine 0", asked=name)


def make_checkpoint(directory: Path, **overrides: Any) -> Path:
    """A random Llama with 2 layers, 4 heads over 2 KV heads and 97 tokens, saved by transformers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "tie_word_embeddings": False,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**(sizes | overrides))).save_pretrained(directory)
    return directory


def make_config(path: Path, *, modules: dict[str, str] | None = None, **changes: Any) -> EngineConfig:
    """``changes``: pages, host_pages, block_size, max_num_seqs, tensor_parallel, loading_workers, dtype, enforce_eager …"""
    config = json.loads((path / "config.json").read_text())
    choices = {kind: choice(kind, module) for kind, module in (MODULES | (modules or {})).items()}
    info = load(choices["model"], MODEL).describe(config)
    checkpoint = Checkpoint(model=str(path), path=str(path), config_path=str(path), tokenizer_path=str(path))
    pages = changes.get("pages", 64)
    seqs = changes.get("max_num_seqs", 16)
    return EngineConfig(
        model=ModelConfig(
            checkpoint=checkpoint, config=config, generation={}, info=info, dtype=changes.get("dtype", "float32"),
            max_model_len=changes.get("max_model_len", info.max_model_len), served_names=("tiny",),
        ),
        load=LoadConfig(progress=False),
        cache=CacheConfig(
            block_size=changes.get("block_size", 4), dtype=changes.get("dtype", "float32"), pages=pages,
            host_pages=changes.get("host_pages", 0), page_bytes=0, prefix_caching=False, memory_fraction=0.9,
            pages_override=pages,
        ),
        scheduler=SchedulerConfig(max_num_batched_tokens=changes.get("max_num_batched_tokens", 512), max_num_seqs=seqs),
        parallel=ParallelConfig(
            tensor_parallel=changes.get("tensor_parallel", 1), loading_workers=changes.get("loading_workers")
        ),
        run=RunConfig(
            enforce_eager=changes.get("enforce_eager", False),
            max_seq_len_to_capture=changes.get("max_seq_len_to_capture", 8192),
        ),
        server=ServerConfig(),
        device=DeviceFacts(name="cpu", available=True, reason=""),
        choices=choices,
    )  # fmt: skip


def greedy(**changes: Any) -> SamplingParams:
    return SamplingParams(**({"temperature": 0.0, "max_tokens": 64} | changes))


@dataclass
class Track:
    """One request as the driver sees it."""

    tokens: list[int]
    num_prompt: int
    params: SamplingParams
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    known: int = 0
    results: list[SequenceResult] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.num_prompt :]


class Driver:
    """Gives pages in order, computes at most ``chunk`` tokens of a prompt per step, and never preempts."""

    def __init__(self, submit: Any, block_size: int = 4, chunk: int = 512) -> None:
        self.submit = submit
        self.block_size = block_size
        self.chunk = chunk
        self.tracks: dict[int, Track] = {}
        self.next_page = 0
        self.index = 0
        self.fresh: list[NewSequence] = []

    def add(self, seq: int, prompt: list[int], params: SamplingParams, **more: Any) -> None:
        self.tracks[seq] = Track(list(prompt), len(prompt), params, known=len(prompt))
        self.fresh.append(NewSequence(seq=seq, token_ids=list(prompt), num_prompt=len(prompt), params=params, **more))

    def pages(self, track: Track, length: int) -> list[int]:
        """Page numbers that the track needs for that many tokens."""
        wanted = -(-length // self.block_size) - len(track.blocks)
        given = list(range(self.next_page, self.next_page + max(0, wanted)))
        self.next_page += len(given)
        track.blocks += given
        return given

    def work(self, seq: int, draft: list[int] | None = None) -> Work:
        track = self.tracks[seq]
        draft = draft or []
        count = min(self.chunk, len(track.tokens) - track.computed) + len(draft)
        reaches = track.computed + count == len(track.tokens) + len(draft)
        append, track.known = track.tokens[track.known :], len(track.tokens)
        blocks = self.pages(track, track.computed + count)
        return Work(
            seq=seq, start=track.computed, count=count, append=append, draft=draft, blocks=blocks, sample=reaches
        )

    def step(self, seqs: list[int], drafts: dict[int, list[int]] | None = None, **moves: Any) -> StepResult:
        drafts = drafts or {}
        work = [self.work(seq, drafts.get(seq)) for seq in seqs]
        step = Step(index=self.index, work=work, new=self.fresh, **moves)
        self.index += 1
        self.fresh = []
        result = self.submit(msgspec.msgpack.decode(msgspec.msgpack.encode(step), type=Step))
        for item, answer in zip(work, result.results, strict=True):
            track = self.tracks[item.seq]
            track.results.append(answer)
            track.computed = item.start + item.count - len(item.draft) + max(0, len(answer.token_ids) - 1)
            track.tokens += answer.token_ids
        return result

    def generate(self, count: int, seqs: list[int] | None = None) -> dict[int, list[int]]:
        """Run until each sequence has ``count`` output tokens."""
        seqs = list(self.tracks) if seqs is None else seqs
        while running := [seq for seq in seqs if len(self.tracks[seq].output) < count]:
            self.step(running)
        return {seq: self.tracks[seq].output for seq in seqs}


def make_worker(config: EngineConfig) -> LocalWorker:
    """A loaded worker with caches; torch is left at one thread."""
    import torch

    from engine.worker.worker import LocalWorker

    worker = LocalWorker(config, 0, "")
    worker.load()
    worker.budget()
    worker.allocate(config.cache.pages, config.cache.host_pages)
    torch.set_num_threads(1)
    return worker
