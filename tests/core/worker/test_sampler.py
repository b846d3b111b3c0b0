"""Each row equals a slow definition of it, alone and among any neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import pytest
import torch

from engine.plugin import GuideSpec, LogitsProcessor, NewSequence, SamplingParams
from engine.worker.masks import Masks
from engine.worker.sampler import Rows, Sampled, Sampler
from engine.worker.sequences import Sequence
from engine.worker.uniform import uniforms

VOCAB = 60


class Doubling(LogitsProcessor):
    """Doubles every logit, then adds the number of output tokens to token 0."""

    def validate(self, arguments: dict[str, Any]) -> str | None:
        return None

    def apply(
        self, logits: torch.Tensor, prompt: Tokens[int], output: Tokens[int], arguments: dict[str, Any]
    ) -> torch.Tensor:
        if arguments.get("fail"):
            raise ZeroDivisionError("asked to")
        logits = logits * 2
        logits[0] += len(output)
        return logits


SAMPLER = Sampler(Masks(lambda name: {"doubling": Doubling()}[name]))


def sequence(prompt: list[int], output: list[int], eos: tuple[int, ...] = (2,), **params: Any) -> Sequence:
    params.setdefault("seed", 11)
    new = NewSequence(
        seq=len(prompt), token_ids=prompt + output, num_prompt=len(prompt), params=SamplingParams(**params),
        eos_token_ids=eos,
    )  # fmt: skip
    return Sequence(new, 0)


def sample(logits: torch.Tensor, *sequences: Sequence) -> Sampled:
    return SAMPLER.sample(logits, Rows(list(sequences), np.array([s.length for s in sequences])))


def slow_scores(logits: torch.Tensor, s: Sequence) -> torch.Tensor:  # noqa: C901 - one rule after another
    """Masks and penalties one by one, in the documented order, with transformers where it defines them."""
    from transformers.generation import logits_process as lp

    p, row = s.params, logits.clone().float()
    prompt, output = s.tokens[: s.num_prompt].tolist(), s.tokens[s.num_prompt : s.length].tolist()
    for name, arguments in p.logits_processors:
        row = {"doubling": Doubling()}[name].apply(row, prompt, output, arguments)
    for token, bias in p.logit_bias.items():
        row[token] += bias
    if p.allowed_token_ids is not None:
        for token in range(VOCAB):
            if token not in p.allowed_token_ids:
                row[token] = -math.inf
    if p.bad_words_ids:
        ids = torch.tensor([output], dtype=torch.int64)
        words = [list(word) for word in p.bad_words_ids]
        row = lp.SequenceBiasLogitsProcessor([[word, -math.inf] for word in words])(ids, row[None])[0]
    if len(output) < p.min_tokens:
        for token in {*p.stop_token_ids, *(() if p.ignore_eos else s.eos)}:
            row[token] = -math.inf
    if p.repetition_penalty != 1.0:
        ids = torch.tensor([prompt + output])
        row = lp.RepetitionPenaltyLogitsProcessor(p.repetition_penalty)(ids, row[None])[0]
    for token in set(output):
        row[token] -= p.frequency_penalty * output.count(token) + p.presence_penalty
    return row


def slow_token(logits: torch.Tensor, s: Sequence) -> int:
    from transformers.generation import logits_process as lp

    p, row = s.params, slow_scores(logits, s)
    if p.temperature < 1e-5:
        return int(row.argmax())
    row = row[None] / p.temperature
    if 0 < p.top_k < VOCAB:
        row = lp.TopKLogitsWarper(p.top_k)(None, row)
    if p.top_p < 1:
        row = lp.TopPLogitsWarper(p.top_p)(None, row)
    if p.min_p > 0:
        row = lp.MinPLogitsWarper(p.min_p)(None, row)
    sums = torch.softmax(row[0].double(), -1).cumsum(-1)
    u = float(uniforms(np.array([p.seed]), np.array([s.length]))[0])
    return int(torch.nonzero(sums > u)[0])


def random_params(generator: np.random.Generator) -> dict[str, Any]:
    """Each feature with a chance of its own."""
    def pick(default: Any, *values: Any) -> Any:
        return default if generator.random() < 0.6 else values[generator.integers(len(values))]

    return {
        "temperature": pick(1.0, 0.0, 1e-6, 0.3, 2.0),
        "top_k": pick(-1, 0, 1, 3, 20, 1000),
        "top_p": pick(1.0, 0.95, 0.4),
        "min_p": pick(0.0, 0.05, 0.5),
        "repetition_penalty": pick(1.0, 1.3, 0.7),
        "presence_penalty": pick(0.0, 1.5, -1.0),
        "frequency_penalty": pick(0.0, 0.8, -0.5),
        "logit_bias": pick({}, {3: 5.0, 9: -100.0}, {2: 30.0}),
        "allowed_token_ids": pick(None, (1, 2, 3, 4, 5), tuple(range(0, VOCAB, 2))),
        "bad_words_ids": pick((), ((4,),), ((7, 8), (8, 9, 3), (5,))),
        "min_tokens": pick(0, 3, 50),
        "ignore_eos": pick(False, True),
        "stop_token_ids": pick((), (6, 4)),
        "logits_processors": pick((), (("doubling", {}),)),
        "seed": int(generator.integers(-(2**63), 2**63 - 1)),
        "logprobs": pick(None, 0, 4),
    }


@pytest.fixture(scope="module")
def crowd() -> tuple[torch.Tensor, list[Sequence]]:
    """200 rows with random parameters and histories; outputs often end in a piece of a bad word."""
    generator = np.random.default_rng(5)
    torch.manual_seed(5)
    rows = []
    for _ in range(200):
        prompt = generator.integers(0, VOCAB, generator.integers(1, 8)).tolist()
        output = generator.integers(0, VOCAB, generator.integers(0, 9)).tolist()
        tail = [[], [7], [8], [8, 9]][generator.integers(4)]
        rows.append(sequence(prompt, output + tail, **random_params(generator)))
    return torch.randn(200, VOCAB) * 3, rows


def test_every_row_equals_its_definition(crowd: tuple[torch.Tensor, list[Sequence]]) -> None:
    logits, rows = crowd
    before = logits.clone()
    got = sample(logits, *rows)
    assert torch.equal(logits, before)
    assert not got.errors
    assert got.tokens.tolist() == [slow_token(logits[i], s) for i, s in enumerate(rows)]


def test_neighbours_do_not_matter(crowd: tuple[torch.Tensor, list[Sequence]]) -> None:
    logits, rows = crowd
    together = sample(logits, *rows)
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = sample(logits[torch.from_numpy(order)], *(rows[i] for i in order))
    assert shuffled.tokens.tolist() == together.tokens[order].tolist()
    for i, s in enumerate(rows):
        alone = sample(logits[i : i + 1], s)
        assert alone.tokens[0] == together.tokens[i]
        assert alone.logprobs.get(0) == together.logprobs.get(i)


def test_half_precision_logits(crowd: tuple[torch.Tensor, list[Sequence]]) -> None:
    logits, rows = crowd
    half = logits.bfloat16()
    got = sample(half, *rows)
    greedy = [i for i, s in enumerate(rows) if s.greedy]
    assert [got.tokens[i] for i in greedy] == [slow_token(half[i].float(), rows[i]) for i in greedy]


def test_logprobs_are_of_the_models_own_logits(crowd: tuple[torch.Tensor, list[Sequence]]) -> None:
    logits, rows = crowd
    got = sample(logits, *rows)
    raw = torch.log_softmax(logits, -1)
    asked = [i for i, s in enumerate(rows) if s.params.logprobs is not None]
    assert sorted(got.logprobs) == asked
    for i in asked:
        entry, count = got.logprobs[i], rows[i].params.logprobs
        best = raw[i].sort(descending=True, stable=True)
        assert entry.token_id == got.tokens[i]
        assert entry.logprob == pytest.approx(float(raw[i, entry.token_id]), abs=1e-6)
        assert entry.rank == best.indices.tolist().index(entry.token_id) + 1
        assert entry.top_ids == best.indices[:count].tolist()
        assert entry.top_logprobs == pytest.approx(best.values[:count].tolist(), abs=1e-6)


def test_equal_logits_give_the_lowest_id() -> None:
    logits = torch.zeros(1, VOCAB)
    got = sample(logits, sequence([1], [], temperature=0.0, logprobs=3))
    assert got.tokens[0] == 0
    assert got.logprobs[0].top_ids == [0, 1, 2]
    assert got.logprobs[0].rank == 1


def test_the_sampled_distribution_is_the_softmax() -> None:
    """Chi-square over 30000 seeds, temperature 0.7 and top-k 12: 11 degrees of freedom, 31.3 is the 99.9th percentile."""
    torch.manual_seed(2)
    logits = torch.randn(VOCAB)
    rows = [sequence([1, 2], [3], temperature=0.7, top_k=12, seed=seed) for seed in range(30000)]
    got = sample(logits.expand(30000, -1).contiguous(), *rows)
    best = logits.topk(12)
    expected = torch.softmax(best.values.double() / 0.7, -1).numpy() * 30000
    counts = np.bincount(got.tokens, minlength=VOCAB)[best.indices.numpy()]
    assert counts.sum() == 30000
    assert ((counts - expected) ** 2 / expected).sum() < 31.3


def test_a_bad_row_fails_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, VOCAB)
    good = logits.clone()
    logits[1, 3] = torch.nan
    logits[2, 7] = torch.inf
    logits[3] = -torch.inf
    rows = [sequence([1], [], temperature=t, logprobs=1) for t in (0.0, 1.0, 0.0, 1.0, 0.8)]
    got = sample(logits, *rows)
    assert got.errors == dict.fromkeys([1, 2, 3], "the model's logits are not finite")
    assert sorted(got.logprobs) == [0, 4]
    assert got.tokens[[0, 4]].tolist() == sample(good, *rows).tokens[[0, 4]].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_constraints_that_leave_nothing_are_an_error(temperature: float) -> None:
    params = {"temperature": temperature, "allowed_token_ids": (2,), "min_tokens": 4}
    got = sample(torch.zeros(2, VOCAB), sequence([1], [], **params), sequence([1], [], temperature=temperature))
    assert list(got.errors) == [0]
    assert "every token is forbidden" in got.errors[0]


def test_what_a_row_cannot_have_fails_that_row() -> None:
    rows = [
        sequence([1], [], logits_processors=(("doubling", {"fail": True}),)),
        sequence([1], [], logit_bias={VOCAB: 1.0}),
        sequence([1], [], guide=GuideSpec("json", {})),
        sequence([1], []),
    ]
    errors = sample(torch.zeros(4, VOCAB), *rows).errors
    assert sorted(errors) == [0, 1, 2]
    assert "doubling" in errors[0]
    assert "ZeroDivisionError: asked to" in errors[0]
    assert "logit_bias" in errors[1]
    assert "guided decoding" in errors[2]


def test_a_long_history_is_counted_as_it_grows() -> None:
    """The incremental counts equal counting afresh, with drafts on top and taken back again."""
    generator = np.random.default_rng(8)
    tokens = generator.integers(0, VOCAB, 300).tolist()
    penalties = {"temperature": 0.0, "frequency_penalty": 0.3, "repetition_penalty": 1.2, "presence_penalty": 0.1}
    s = sequence(tokens[:10], [], **penalties)
    torch.manual_seed(3)
    for end in range(11, 297, 7):
        s.extend(tokens[s.length : end], tokens[end : end + 3])
        logits = torch.randn(4, VOCAB)
        lengths = np.arange(end, end + 4)
        got = SAMPLER.sample(logits, Rows([s] * 4, lengths)).tokens.tolist()
        fresh = [sequence(tokens[:10], tokens[10:length], **penalties) for length in lengths]
        assert got == [slow_token(logits[i], f) for i, f in enumerate(fresh)]


def test_logits_of_another_dtype_are_masked_before_they_are_weighed():
    """They are converted and then changed in place; the largest one may be a token that the masks forbid."""
    logits = torch.zeros(2, VOCAB, dtype=torch.bfloat16)
    logits[:, 5] = 300.0
    allowed = sequence([1], [], allowed_token_ids=(7, 8), temperature=1.0)
    none = sequence([1, 2], [], allowed_token_ids=(7,), logit_bias={7: -math.inf}, temperature=1.0)
    got = sample(logits, allowed, none)
    assert got.tokens[0] == slow_token(logits[0], allowed)
    assert list(got.errors) == [1] and "forbidden" in got.errors[1]
    assert (logits[:, 5] == 300.0).all()
