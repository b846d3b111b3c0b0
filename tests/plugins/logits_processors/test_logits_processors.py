"""The built-in logits processors, against transformers where it has the same one."""

from __future__ import annotations

import math

import pytest
import torch

from engine.plugin import kinds
from engine.plugin.host import PluginHost

VOCAB = 23


def make(name):
    return PluginHost().create(kinds.LOGITS_PROCESSOR, name, options={}).plugin


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 17, 300])
def test_no_repeat_ngram_is_that_of_transformers(size, length):
    from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

    generator = torch.Generator().manual_seed(size * 1000 + length)
    theirs, ours = NoRepeatNGramLogitsProcessor(size), make("no_repeat_ngram")
    for _ in range(20):
        tokens = torch.randint(0, 4 if length < 100 else VOCAB, (length,), generator=generator)
        logits = torch.randn(VOCAB, generator=generator)
        expected = theirs(tokens[None], logits[None].clone())[0] if length else logits
        half = length // 2
        got = ours.apply(logits.clone(), tokens[:half].tolist(), tokens[half:].tolist(), {"size": size})
        assert torch.equal(got, expected)


def test_no_repeat_ngram_can_leave_the_prompt_out():
    ours = make("no_repeat_ngram")
    got = ours.apply(torch.zeros(5), [1, 2], [1], {"size": 2, "prompt": False})
    assert not torch.isinf(got).any()
    assert torch.isinf(ours.apply(torch.zeros(5), [1, 2], [1], {"size": 2})).nonzero().tolist() == [[2]]
    # ids beyond the logits (a padded vocabulary the other way round) forbid nothing
    assert torch.isinf(ours.apply(torch.zeros(3), [4, 1, 4], [4], {"size": 1})).nonzero().tolist() == [[1]]


@pytest.mark.parametrize("n", [0.5, 1, 2.5])
def test_top_n_sigma_keeps_the_same_tokens_at_every_temperature(n):
    ours, generator = make("top_n_sigma"), torch.Generator().manual_seed(3)
    for _ in range(20):
        logits = torch.randn(VOCAB, generator=generator)
        got = ours.apply(logits.clone(), [], [], {"n": n})
        values = logits.double().tolist()
        mean = sum(values) / VOCAB
        sigma = math.sqrt(sum((value - mean) ** 2 for value in values) / VOCAB)
        assert torch.isfinite(got).tolist() == [value >= max(values) - n * sigma for value in values]
        assert torch.equal(torch.isfinite(ours.apply(logits / 3.0, [], [], {"n": n})), torch.isfinite(got))
    forbidden = torch.full((VOCAB,), -torch.inf)
    forbidden[[3, 7]] = torch.tensor([1.0, 1.5])
    assert torch.isfinite(ours.apply(forbidden, [], [], {"n": 3})).nonzero().flatten().tolist() == [3, 7]


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("no_repeat_ngram", {}, "size"), ("no_repeat_ngram", {"size": 0}, "size"), ("no_repeat_ngram", {"size": True}, "size"),
        ("no_repeat_ngram", {"size": 2.0}, "size"), ("no_repeat_ngram", {"size": 2, "prompt": 1}, "prompt"),
        ("no_repeat_ngram", {"size": 2, "window": 3}, "window"), ("top_n_sigma", {}, "n must"), ("top_n_sigma", {"n": 0}, "n must"),
        ("top_n_sigma", {"n": math.inf}, "n must"), ("top_n_sigma", {"n": "1"}, "n must"), ("top_n_sigma", {"n": 1, "m": 1}, "'m'"),
    ],
)  # fmt: skip
def test_arguments_are_checked(name, arguments, part):
    assert part in make(name).validate(arguments)


def test_right_arguments_pass():
    assert make("no_repeat_ngram").validate({"size": 3, "prompt": False}) is None and make("top_n_sigma").validate({"n": 1}) is None
