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
from tests.quant import packers, tiles
from tests.quant.cases import AWQ, GPTQ, MARLIN, QQQ
from tests.quant.checkpoints import Quantized, load_model, packed_weights, write_quantized

SOURCE = Path(engine.bundled.__path__[0]) / "demo"
#: Questions of each kind.
COUNT = 24
Sample = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class DemoCase:
    """One row. ``pack`` writes the linear layers as ``config`` says; None: the plain model, quantized while loading where ``flags`` say so.

    ``near``: nearly nothing may be lost (8 bits).
    """

    method: str
    scheme: str
    pack: Callable[[Tensor], Quantized] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    near: bool = False


class Quality(NamedTuple):
    """Share of exact answers, perplexity of the answers, bytes of the linear layers."""

    exact: float
    perplexity: float
    held: int


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
    path = SOURCE
    if case.pack is not None:
        pack = case.pack
        write_quantized(folder / "quantized", SOURCE, lambda _, weight: pack(weight), case.config)
        path = folder / "quantized"
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
    held = sum(weight.nbytes() for name, weight in packed_weights(path, dtype="bfloat16", **case.flags).items() if name != "head")
    return Quality(exact / len(samples), math.exp(loss / tokens), held)


def _gptq(bits: int, **how: Any) -> DemoCase:
    config = GPTQ | {"bits": bits, "sym": how.get("symmetric", False), "desc_act": how.get("act_order", False)}
    how = {"symmetric": False} | how
    order = ", act-order" if how.get("act_order") else ""
    return DemoCase(
        "gptq", f"{bits} bits, groups of 32{order}", lambda weight: packers.gptq(weight, bits=bits, **how), config,
        {"quantization": "gptq"}, near=bits == 8,
    )  # fmt: skip


def _hqq(bits: int, group: int) -> DemoCase:
    params = {"weight_quant_params": {"nbits": bits, "group_size": group, "axis": 1}}
    config = {"quant_method": "hqq", "quant_config": params}
    scheme = f"{bits} bits, groups of {group}"
    return DemoCase("hqq", scheme, lambda weight: packers.hqq(weight, bits=bits, group=group), config, near=bits == 8)


def _online(method: str, near: bool = False) -> DemoCase:
    return DemoCase(method, "while loading", flags={"quantization": method}, near=near)


DEMO: tuple[DemoCase, ...] = (
    DemoCase("none", "bfloat16", near=True),
    _gptq(2), _gptq(3), _gptq(4), _gptq(4, act_order=True), _gptq(8),
    DemoCase("awq", "4 bits, groups of 32", packers.awq, AWQ, {"quantization": "awq"}),
    DemoCase("awq", "8 bits, groups of 32", lambda w: packers.awq(w, bits=8), AWQ | {"bits": 8}, {"quantization": "awq"}, near=True),
    DemoCase("marlin", "4 bits, groups of 128", tiles.marlin, MARLIN | {"checkpoint_format": "marlin"}),
    DemoCase("qqq", "4 bits, groups of 128", tiles.qqq, QQQ),
    _hqq(2, 32), _hqq(3, 32), _hqq(4, 64), _hqq(8, 64),
    _online("fp8"), _online("ptpc_fp8"), _online("bitsandbytes"), _online("tpu_int8", near=True), _online("neuron_quant", near=True),
)  # fmt: skip
