"""The bundled model ``demo`` quantized by each weight-only method: how many answers stay exact, and the perplexity."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import engine.bundled
from tests.plugins.models.harness import Player, Sequence
from tests.quant.checkpoints import Quantized, load_model, packed_weights, write_quantized

SOURCE = Path(engine.bundled.__path__[0]) / "demo"
#: Questions of each kind.
COUNT = 24
Sample = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class DemoCase:
    """One row. ``pack`` writes the linear layers as ``config`` says; None: the plain model, quantized while loading where ``flags`` say so.

    ``near``: nearly nothing may be lost (8 bits). ``producer``: a library, which must be installed, or what wrote the layers else.
    ``blocks``: a type of a GGUF file. ``files``: side files of the checkpoint.
    """

    method: str
    scheme: str
    pack: Callable[[Tensor], Quantized] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    near: bool = False
    producer: str = "specification"
    blocks: str = ""
    files: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.method}, {self.scheme}"

    def library(self) -> str:
        """The module of the producer, where that is a library."""
        return {"compressed-tensors": "compressed_tensors", "bitsandbytes": "bitsandbytes", "gguf": "gguf"}.get(self.producer, "")

    def write(self, folder: Path) -> Path:
        """The checkpoint: the plain one, or one in an empty folder."""
        if self.blocks:
            from tests.gguf.producer import write_gguf

            write_gguf(folder / "m.gguf", SOURCE, "qwen3", lambda name: self.blocks if name.startswith("blk") else "F16", fit=True)
            return folder / "m.gguf"
        if self.pack is None and not self.files:
            return SOURCE
        pack = self.pack
        write_quantized(
            folder / "quantized", SOURCE, lambda _, weight: pack(weight) if pack else None, self.config or None, side_files=self.files
        )
        return folder / "quantized"


class Quality(NamedTuple):
    """Share of exact answers, perplexity of the answers, bytes of the linear layers as held, and as bfloat16."""

    exact: float
    perplexity: float
    held: int
    dense: int


def questions() -> list[Sample]:
    """Held-out conversations as ids, and which of these are the answer."""
    folder = str(Path(__file__).resolve().parents[2] / "tools" / "demo")
    sys.path.insert(0, folder)
    try:
        from batches import heldout  # type: ignore[import-not-found]
        from data import EVALUATED  # type: ignore[import-not-found]
    finally:
        sys.path.remove(folder)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    return [sample for kind in EVALUATED for sample in heldout(tokenizer, kind, COUNT)]


def measure(case: DemoCase, folder: Path, samples: list[Sample]) -> Quality:
    """By the CPU's own kernels with bfloat16 activations: an answer is exact where its every token has the highest logit."""
    path = case.write(folder)
    model, context = load_model(path, native=True, dtype="bfloat16", **case.flags)
    exact, loss, tokens = 0, 0.0, 0
    for start in range(0, len(samples), 16):
        batch = samples[start : start + 16]
        player = Player(model, context, pages=1 + sum(len(ids) // 4 + 1 for ids, _ in batch), dtype=context.dtype)
        logits = player.step([(Sequence(list(ids), 0), len(ids)) for ids, _ in batch]).float()
        for (ids, mask), rows in zip(batch, logits.split([len(ids) for ids, _ in batch]), strict=True):
            places = torch.tensor(mask[1:]).nonzero().flatten()
            targets = torch.tensor(ids[1:])[places]
            exact += int((rows[places].argmax(-1) == targets).all())
            loss += float(torch.nn.functional.cross_entropy(rows[places], targets, reduction="sum"))
            tokens += len(targets)
    packed = [weight for name, weight in packed_weights(path, dtype="bfloat16", **case.flags).items() if name not in ("head", "embedding")]
    held, dense = sum(each.nbytes() for each in packed), sum(2 * each.outputs * each.inputs for each in packed)
    return Quality(exact / len(samples), math.exp(loss / tokens), held, dense)
