"""Trains the byte-level BPE tokenizer on the training split."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

from data import conversation, render
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from words import spaced

SPECIAL = spaced("<|endoftext|> <|im_start|> <|im_end|> <think> </think> <tool_call> </tool_call> <tool_response> </tool_response>")
VOCABULARY = 2048
# A space joins lower-case words only: a capitalised name must be the same tokens after a space and after a quote,
# since the model copies it from one place to the other. Digits stand alone for the same reason.
PATTERN = r" ?[\p{Ll}\p{Lo}\p{Lm}\p{M}]+|\p{Lu}[\p{Ll}\p{M}]*|\p{Lt}|\p{N}| ?[^\s\p{L}\p{N}\p{M}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def texts(count: int) -> Iterator[str]:
    """Rendered training conversations without the special tokens' spelling."""
    rng = Random(1)
    for _ in range(count):
        text = "".join(piece for piece, _ in render(conversation(rng, "train")))
        for token in SPECIAL:
            text = text.replace(token, "\n")
        yield text


def train(count: int) -> Tokenizer:
    """The trained tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(count), trainer)
    return tokenizer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/demo-train"))
    parser.add_argument("--conversations", type=int, default=40000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    train(options.conversations).save(str(options.work / "tokenizer.json"))


if __name__ == "__main__":
    main()
