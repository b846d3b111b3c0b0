"""Conversations as padded batches of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from data import conversation, question, render
from tokenizers import Tokenizer
from torch import Tensor
from turns import Conversation

# Few shapes, since every new one costs the compiler and the matrix library time.
LENGTHS = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1280)
IGNORED = -100
Sample = tuple[list[int], list[bool]]


@dataclass
class Batch:
    """Ids, the flat positions whose next token is learned, and these next tokens."""

    ids: Tensor
    rows: Tensor
    targets: Tensor


def encode(tokenizer: Tokenizer, talk: Conversation, keep_thoughts: bool = True) -> Sample:
    """Token ids, and which of them the model writes."""
    ids: list[int] = []
    mask: list[bool] = []
    for text, learned in render(talk, keep_thoughts):
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        mask += [learned] * len(piece)
    return ids, mask


def collate(samples: list[Sample]) -> Batch:
    """A right-padded batch: causal attention never looks at the padding."""
    longest = max(len(ids) for ids, _ in samples) - 1
    length = next(size for size in LENGTHS if size >= longest)
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    rows: list[int] = []
    targets: list[int] = []
    for index, (tokens, mask) in enumerate(samples):
        ids[index, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        for position in range(1, len(tokens)):
            if mask[position]:
                rows.append(index * length + position - 1)
                targets.append(tokens[position])
    extra = -len(rows) % 512
    rows += [0] * extra
    targets += [IGNORED] * extra
    return Batch(ids, torch.tensor(rows), torch.tensor(targets))


def batches(tokenizer: Tokenizer, seed: int, tokens: int) -> Iterator[Batch]:
    """Endless training batches of about equal size, each of conversations of one length class."""
    rng = Random(seed)
    waiting: dict[int, list[Sample]] = {length: [] for length in LENGTHS}
    while True:
        samples = [encode(tokenizer, conversation(rng, "train"), rng.random() < 0.7) for _ in range(1536)]
        for length, shorter in zip(LENGTHS, (0, *LENGTHS), strict=False):
            waiting[length] += [sample for sample in samples if shorter < len(sample[0]) - 1 <= length]
        cut: list[list[Sample]] = []
        for length, queue in waiting.items():
            size = tokens // length
            while len(queue) >= size:
                cut.append(queue[:size])
                del queue[:size]
        rng.shuffle(cut)
        yield from map(collate, cut)


def heldout(tokenizer: Tokenizer, kind: str, count: int, seed: int = 7) -> list[Sample]:
    """Held-out questions with only the last answer marked."""
    rng = Random(f"{seed} {kind}")
    samples = []
    for _ in range(count):
        asked, expected = question(rng, kind)
        asked.turns.append(expected)
        ids, mask = encode(tokenizer, asked, keep_thoughts=False)
        start = len(mask)
        while start > 0 and (mask[start - 1] or start == len(mask)):
            start -= 1
        samples.append((ids, [False] * start + mask[start:]))
    return samples
