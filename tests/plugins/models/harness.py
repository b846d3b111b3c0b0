"""Plays the worker for one model: pages, mixed batches of prefill chunks and decodes, greedy continuation."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import load_file

from engine.attention import built_in
from engine.layers.packed import reference_kernel
from engine.plugin import AttentionBatch, Batch, Model, ModelContext, Parallel
from engine.plugin.contracts.serving import ModelArchitecture

BLOCK = 4


class Alone(Parallel):
    """A single rank."""

    def all_reduce(self, x):
        return x

    def all_gather(self, x, dim=-1):
        return x


class Threads:
    """A tensor-parallel group whose ranks are threads."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots = [None] * size

    def exchange(self, rank, x):
        self.slots[rank] = x
        self.barrier.wait()
        everyone = list(self.slots)
        self.barrier.wait()
        return everyone


class Rank(Parallel):
    """One thread of a group."""

    def __init__(self, group, rank, size):
        self.group, self.rank, self.size = group, rank, size

    def all_reduce(self, x):
        return torch.stack(self.group.exchange(self.rank, x)).sum(0)

    def all_gather(self, x, dim=-1):
        return torch.cat(self.group.exchange(self.rank, x), dim)


@dataclass
class Sequence:
    """A prompt and what follows; ``logits`` has a row for every token that was fed."""

    tokens: list[int]
    wanted: int
    prompt: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self):
        self.prompt = len(self.tokens)


def checkpoint(path: Path):
    """The config and a function that yields the tensors of a saved checkpoint."""
    config = json.loads((path / "config.json").read_text())

    def tensors():
        for file in sorted(path.glob("*.safetensors")):
            yield from load_file(file).items()

    return config, tensors


def architecture(module: str) -> ModelArchitecture:
    """The architecture of a plugin module ``engine_plugins.models.<module>``."""
    return import_module(f"engine_plugins.models.{module}").engine_create_model()


def context(arch, config, parallel=None, **changes) -> ModelContext:
    """A context on the CPU in float32 with the reference attention and kernels."""
    return ModelContext(
        info=arch.describe(config),
        config=config,
        dtype=torch.float32,
        device=torch.device("cpu"),
        parallel=parallel or Alone(),
        attention=built_in("cpu"),
        kernel=reference_kernel,
        **changes,
    )


def build(arch, config, tensors, parallel=None, **changes) -> tuple[Model, ModelContext]:
    """A loaded model; every parameter must have been filled."""
    made = context(arch, config, parallel, **changes)
    model = arch.build(made)
    missing = model.load(tensors())
    assert missing == set(), missing
    model.finish()
    return model, made


class Player:
    """Runs sequences on a model's pages."""

    def __init__(self, model: Model, made: ModelContext, pages: int = 256, dtype: torch.dtype = torch.float32):
        self.model, self.context = model, made
        specs = [spec.sharded(made.parallel.size) for spec in made.info.layers]
        self.caches = [made.attention.allocate(spec, pages, BLOCK, dtype, made.device) for spec in specs]
        order = torch.Generator().manual_seed(7)
        self.free = torch.randperm(pages, generator=order).tolist()

    def step(self, work: list[tuple[Sequence, int]]) -> torch.Tensor:
        """Feed the next ``count`` tokens of each sequence; their logits, packed."""
        with torch.inference_mode():
            batch = self.batch(work)
            logits = self.model.logits(self.model.forward(batch))
        row = 0
        for sequence, count in work:
            sequence.logits.extend(logits[row : row + count])
            sequence.computed += count
            row += count
            if sequence.computed == len(sequence.tokens) and len(sequence.tokens) - sequence.prompt < sequence.wanted:
                sequence.tokens.append(int(sequence.logits[-1].argmax()))
        return logits

    def batch(self, work) -> Batch:
        ids, positions, slots, starts, lengths = [], [], [], [0], []
        for sequence, count in work:
            end = sequence.computed + count
            while len(sequence.blocks) * BLOCK < end:
                sequence.blocks.append(self.free.pop())
            span = range(sequence.computed, end)
            ids += [sequence.tokens[p] for p in span]
            positions += span
            slots += [sequence.blocks[p // BLOCK] * BLOCK + p % BLOCK for p in span]
            starts.append(starts[-1] + count)
            lengths.append(end)
        width = max(len(sequence.blocks) for sequence, _ in work)
        table = [sequence.blocks + [0] * (width - len(sequence.blocks)) for sequence, _ in work]
        counts = tuple(count for _, count in work)
        attention = AttentionBatch(
            query_start=torch.tensor(starts, dtype=torch.int32), seq_lens=torch.tensor(lengths, dtype=torch.int32),
            block_table=torch.tensor(table, dtype=torch.int32), slots=torch.tensor(slots), block_size=BLOCK,
            max_query_len=max(counts), max_seq_len=max(lengths), host=(counts, tuple(lengths)),
        )  # fmt: skip
        return Batch(token_ids=torch.tensor(ids), positions=torch.tensor(positions), attention=attention, caches=self.caches)

    def run(self, prompts: list[list[int]], wanted: int, chunk: int = 5) -> list[Sequence]:
        """Continue all prompts greedily; sequence i joins at step 2 i, prompts are fed in chunks beside the others' decodes."""
        sequences = [Sequence(list(prompt), wanted) for prompt in prompts]
        step = 0
        while True:
            running = [s for i, s in enumerate(sequences) if 2 * i <= step and s.computed < len(s.tokens)]
            if not running and step >= 2 * len(sequences):
                return sequences
            if running:
                self.step([(s, min(chunk, len(s.tokens) - s.computed)) for s in running])
            step += 1


def run_ranks(arch, config, tensors, prompts, wanted, size) -> list[list[Sequence]]:
    """The same run on ``size`` ranks in threads; each rank's sequences."""
    group = Threads(size)
    results, failures = [None] * size, []

    def work(rank):
        try:
            model, made = build(arch, config, tensors, Rank(group, rank, size))
            results[rank] = Player(model, made).run(prompts, wanted)
        except Exception as error:  # noqa: BLE001 - handed on to the test
            group.barrier.abort()
            failures.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
