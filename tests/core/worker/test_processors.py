"""Logits processors in the worker: found by name, imported where allowed, one per sequence, failing alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.config import ProcessorConfig
from engine.plugin import LogitsProcessor, SamplingParams
from engine.plugin.step import NewSequence
from engine.worker.masks import Masks
from engine.worker.processors import Processors
from engine.worker.sampler import Rows, Sampler
from engine.worker.sequences import Sequence

VOCAB = 8
HERE = __name__
ALLOWED = ProcessorConfig(pattern=r"tests\.core\.worker\.test_processors\.\w+")


def only(token):
    """What a constructor makes: a processor of (output, logits) that wants one token."""

    def apply(output, logits):
        kept = logits[token].item()
        logits[:] = -torch.inf
        logits[token] = kept
        return logits

    return apply


class Counting:
    """Keeps a state: the i-th call wants token i, and sees i tokens of output after the prompt."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prompt, output, logits):
        assert prompt == [5, 6] and len(output) == self.calls
        self.calls += 1
        return torch.nn.functional.one_hot(torch.tensor(self.calls), VOCAB).float()


class Own(LogitsProcessor):
    def validate(self, arguments):
        return None

    def apply(self, logits, prompt, output, arguments):
        return logits.index_fill(0, torch.tensor([0]), 99.0)


def broken(output, logits):
    raise ZeroDivisionError("no")


def shapeless(output, logits):
    return logits[:3]


def single(logits):
    return logits


constant = 3


def sequence(*processors, length=2, **params):
    tokens = [5, 6, *range(length - 2)]
    params = SamplingParams(temperature=0.0, seed=1, logits_processors=processors, **params)
    return Sequence(NewSequence(seq=1, token_ids=tokens, num_prompt=2, params=params, eos_token_ids=()), 0)


def name(what):
    return f"tests.core.worker.test_processors.{what}"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The runner gives this module another name than an import would."""
    import sys

    monkeypatch.setitem(sys.modules, "tests.core.worker.test_processors", sys.modules[HERE])


def sample(logits, *sequences):
    sampler = Sampler(Masks(Processors(ALLOWED).get))
    return sampler.sample(logits, Rows(list(sequences), np.array([s.length for s in sequences])))


def test_rows_of_one_batch_have_their_own():
    logits = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(1))
    plain = sequence()
    rows = [
        sequence((name("only"), {"args": [4]})), plain, sequence((name("Own"), {})),
        sequence((name("only"), {"kwargs": {"token": 2}}), (name("Own"), {})), sequence((name("broken"), {})),
    ]  # fmt: skip
    got = sample(logits, *rows)
    assert got.tokens[:4].tolist() == [4, int(logits[1].argmax()), 0, 0]
    assert list(got.errors) == [4] and "broken" in got.errors[4] and "ZeroDivisionError: no" in got.errors[4]


def test_a_state_belongs_to_one_sequence_and_grows_with_it():
    one, other = sequence((name("Counting"), {})), sequence((name("Counting"), {}))
    sampler = Sampler(Masks(Processors(ALLOWED).get))
    for step in range(1, 5):
        got = sampler.sample(torch.zeros(1, VOCAB), Rows([one], np.array([one.length])))
        assert not got.errors and got.tokens.tolist() == [step]
        one.extend(got.tokens.tolist(), [])
    assert sampler.sample(torch.zeros(1, VOCAB), Rows([other], np.array([2]))).tokens.tolist() == [1]


def test_rejected_drafts_are_forgotten():
    seen = []

    class Seeing(LogitsProcessor):
        def validate(self, arguments):
            return None

        def apply(self, logits, prompt, output, arguments):
            seen.append(list(output))
            return logits

    s = sequence(("seeing", {}))
    sampler = Sampler(Masks({"seeing": Seeing()}.__getitem__))
    s.extend([1], [2, 3])
    sampler.sample(torch.zeros(3, VOCAB), Rows([s] * 3, np.array([3, 4, 5])))
    s.extend([4], [5])
    sampler.sample(torch.zeros(2, VOCAB), Rows([s] * 2, np.array([4, 5])))
    assert seen == [[1], [1, 2], [1, 2, 3], [1, 4], [1, 4, 5]]


@pytest.mark.parametrize(
    ("what", "arguments", "part"),
    [
        (name("missing"), {}, "AttributeError"), (name("constant"), {}, "cannot be called"), (name("single"), {}, "takes 1 arguments"),
        (name("only"), {"args": [1, 2]}, "TypeError"), ("os.system", {}, "neither installed nor allowed"),
        (name("only") + "\nx", {}, "neither installed nor allowed"), ("nothing", {}, "neither installed nor allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(what, arguments, part):
    problem = Processors(ALLOWED).problem(what, arguments)
    assert problem is not None and part in problem


def test_what_can_be_used():
    processors = Processors(ALLOWED)
    for what, arguments in ((name("only"), {"args": [1]}), (name("broken"), {}), (name("Counting"), {}), (name("Own"), {})):
        assert processors.problem(what, arguments) is None
    assert "neither" in Processors(ProcessorConfig()).problem(name("broken"), {})


def test_logits_of_another_shape_are_an_error():
    got = sample(torch.zeros(1, VOCAB), sequence((name("shapeless"), {})))
    assert "shape (3,)" in got.errors[0]
