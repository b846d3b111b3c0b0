"""Sampling parameters: precedence, ranges, refusals that name the field."""

from __future__ import annotations

import math

import pytest

from engine.errors import RequestError
from engine.plugin import SamplingParams
from engine.render.params import Limits, SamplingFields, build_params, choice_seed, fit_context, verify

LIMITS = Limits(logits_size=100, max_model_len=50, max_logprobs=5, max_num_seqs=4, defaults={"temperature": 0.6, "top_k": 20})


def build(max_tokens=16, logprobs=None, **fields) -> SamplingParams:
    return build_params(SamplingFields(**fields), LIMITS, max_tokens=max_tokens, logprobs=logprobs)


def test_precedence():
    params = build()
    assert (params.temperature, params.top_k, params.top_p, params.min_p, params.repetition_penalty) == (0.6, 20, 1.0, 0.0, 1.0)
    params = build(temperature=0.0, top_k=-1)
    assert (params.temperature, params.top_k) == (0.0, -1)
    assert build(temperature=0.001).temperature == 0.01


BAD = [
    ("temperature", {"temperature": -0.1}), ("temperature", {"temperature": math.nan}), ("temperature", {"temperature": math.inf}),
    ("top_p", {"top_p": 0.0}), ("top_p", {"top_p": 1.1}), ("top_p", {"top_p": math.nan}), ("top_k", {"top_k": -2}),
    ("min_p", {"min_p": -0.1}), ("min_p", {"min_p": 1.5}), ("presence_penalty", {"presence_penalty": 2.1}),
    ("frequency_penalty", {"frequency_penalty": -2.1}), ("repetition_penalty", {"repetition_penalty": 0.0}),
    ("repetition_penalty", {"repetition_penalty": 2.1}), ("seed", {"seed": 2**63}), ("seed", {"seed": -(2**63) - 1}),
    ("n", {"n": 0}), ("n", {"n": 5}), ("n", {"n": 10**9}), ("n", {"n": 2, "temperature": 0.0}), ("best_of", {"best_of": 10**9}),
    ("best_of", {"n": 3, "best_of": 2}), ("max_tokens", {"max_tokens": 0}), ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 2**63}), ("min_tokens", {"min_tokens": 17}), ("min_tokens", {"min_tokens": -1}),
    ("logprobs", {"logprobs": 6}), ("logprobs", {"logprobs": -1}), ("prompt_logprobs", {"prompt_logprobs": 6}),
    ("stop", {"stop": ""}), ("stop", {"stop": ["a", ""]}), ("stop", {"stop": ["a"] * 10_000}), ("stop", {"stop": ["x" * 2**20]}),
    ("bad_words", {"bad_words": [""]}), ("stop_token_ids", {"stop_token_ids": [100]}), ("stop_token_ids", {"stop_token_ids": [-1]}),
    ("allowed_token_ids", {"allowed_token_ids": []}), ("allowed_token_ids", {"allowed_token_ids": [5, 100]}),
    ("logit_bias", {"logit_bias": {"100": 1.0}}), ("logit_bias", {"logit_bias": {"x": 1.0}}), ("logit_bias", {"logit_bias": {"-1": 1.0}}),
    ("logit_bias", {"logit_bias": {"1": 101.0}}), ("logit_bias", {"logit_bias": {"1": math.nan}}),
    ("logit_bias", {"logit_bias": {"²": 1.0}}), ("logit_bias", {"logit_bias": {str(n): 0.0 for n in range(20_000)}}),
    ("truncate_prompt_tokens", {"truncate_prompt_tokens": 0}), ("truncate_prompt_tokens", {"truncate_prompt_tokens": 51}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "fields"), BAD)
def test_refused_by_name(param, fields):
    with pytest.raises(RequestError, match="allowed") as caught:
        build(**fields)
    assert caught.value.param == param and caught.value.http_status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2**63 - 1}, {"seed": -(2**63)}, {"stop": [str(number) for number in range(1000)]}, {"stop": ["a", None]},
        {"allowed_token_ids": [99]}, {"logit_bias": {"99": -100.0}}, {"top_k": 0}, {"top_k": 10**12}, {"logprobs": 5}, {"n": 4},
        {"repetition_penalty": 2.0}, {"temperature": 1e30}, {"best_of": 4},
    ],
)  # fmt: skip
def test_accepted(fields):
    build(**fields)


def test_offline_params_are_verified_too():
    with pytest.raises(RequestError):
        verify(SamplingParams(temperature=-1.0), LIMITS)


def test_context_is_kept():
    assert fit_context(build(max_tokens=None), 10, LIMITS, param="prompt").max_tokens == 40
    assert fit_context(build(max_tokens=40), 10, LIMITS, param="prompt").max_tokens == 40
    for prompt, asked in ((10, 41), (50, 1), (50, None), (60, None)):
        with pytest.raises(RequestError, match=r"This model's maximum context length is 50 tokens. However, you requested") as caught:
            fit_context(build(max_tokens=asked), prompt, LIMITS, param="messages")
        assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    capped = Limits(logits_size=100, max_model_len=50, max_new_tokens=5)
    assert fit_context(build(max_tokens=None), 10, capped, param="prompt").max_tokens == 5


def test_seeds_of_choices():
    assert [choice_seed(7, index) for index in range(3)] == [7, 8, 9]
    assert choice_seed(2**63 - 1, 1) == -(2**63)
