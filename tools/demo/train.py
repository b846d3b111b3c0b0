"""Trains demo or demo-draft on generated conversations."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from batches import IGNORED, Sample, batches, collate, heldout
from data import EVALUATED
from model import SHAPES, Model
from tokenizers import Tokenizer
from torch import Tensor

State = dict[str, Tensor]


def exact(model: Model, samples: list[Sample]) -> float:
    """Share of answers that greedy decoding would give exactly: every next token has the highest logit."""
    batch = collate(samples)
    with torch.no_grad():
        states = model.hidden(batch.ids, torch.float32).flatten(0, 1)[batch.rows]
        wrong_token = (batch.targets != IGNORED) & ((states @ model.model.embed_tokens.weight.T).argmax(-1) != batch.targets)
    owner = batch.rows // batch.ids.shape[1]
    wrong = torch.zeros(len(samples)).index_add(0, owner, wrong_token.float())
    return float((wrong == 0).float().mean())


def rounded(state: State) -> State:
    """The weights as they are exported."""
    return {name: value.to(torch.bfloat16).float() for name, value in state.items()}


def report(model: Model, state: State, samples: dict[str, list[Sample]]) -> float:
    """Prints exactness by kind; returns the mean."""
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(rounded(state))
    scores = {kind: exact(model, entry) for kind, entry in samples.items()}
    model.load_state_dict(raw)
    print("  " + ", ".join(f"{kind} {100 * score:.0f}" for kind, score in scores.items()), flush=True)
    return sum(scores.values()) / len(scores)


def save(model: Model, state: State, samples: dict[str, list[Sample]], target: Path) -> None:
    """Reports, and replaces the file in one step, so that it can be exported at any time."""
    print(f"  mean {100 * report(model, state, samples):.2f}", flush=True)
    torch.save(state, target.with_suffix(".new"))
    target.with_suffix(".new").rename(target)


def optimizers(model: Model, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=2 * rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def factor(step: int, progress: float) -> float:
    """Warm-up, a plateau, and a linear fall over the last two thirds."""
    return min((step + 1) / 50, 1.0, 1.5 * (1 - progress) + 0.01)


def fit(options: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """The training loop."""
    torch.manual_seed(options.seed)
    model = Model(SHAPES[options.model])
    target = options.work / f"{options.model}.pt"
    if options.start:
        model.load_state_dict(torch.load(options.start))
    optims = optimizers(model, options.rate)
    peaks = [group["lr"] for optim in optims for group in optim.param_groups]
    average = {name: value.clone() for name, value in model.state_dict().items()}
    samples = {kind: heldout(tokenizer, kind, 100, seed=8) for kind in EVALUATED}
    source = batches(tokenizer, options.seed, options.tokens)
    began, running, seen = time.time(), 0.0, 0
    for step in range(options.steps):
        progress = max(step / options.steps, (time.time() - began) / (60 * options.minutes))
        if progress >= 1:
            break
        batch = next(source)
        for optim, peak in zip(optims, peaks, strict=True):
            optim.param_groups[0]["lr"] = peak * factor(step, progress)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(batch.ids, batch.rows, batch.targets, torch.bfloat16)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        keep = min(0.99, step / (step + 10))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        running, seen = running + float(loss.detach()), seen + batch.ids.numel()
        if (step + 1) % 50 == 0:
            elapsed = time.time() - began
            print(f"{step + 1} loss {running / 50:.4f} {elapsed:.0f} s {seen / elapsed:.0f} tokens/s", flush=True)
            running = 0.0
        if (step + 1) % options.every == 0:
            save(model, average, samples, target)
    save(model, average, samples, target)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(SHAPES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/demo-train"))
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--minutes", type=float, default=600.0, help="end by then, however few steps were made")
    parser.add_argument("--tokens", type=int, default=6144, help="padded tokens per step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fit(options, Tokenizer.from_file(str(options.work / "tokenizer.json")))


if __name__ == "__main__":
    main()
