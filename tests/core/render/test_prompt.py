"""Prompt forms, bounds and emptiness."""

from __future__ import annotations

import time

import pytest

from engine.errors import RequestError
from engine.render.params import Limits
from engine.render.prompt import PromptEncoder, parse_prompts
from tests.core.server.real_tokenizer import FileTokenizer, byte_tokenizer
from tests.data import shared

LIMITS = Limits(logits_size=266, max_model_len=100)


@pytest.mark.parametrize(
    ("value", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""]), (["", "a"], ["", "a"])],
)
def test_forms(value, prompts):
    assert parse_prompts(value, LIMITS) == prompts


@pytest.mark.parametrize(
    "value",
    [
        None, 5, {}, [], [[]], [1, "a"], ["a", [1]], [[1], "a"], [[1, "a"]], [[[1]]], [266], [-1], [[1], [2**40]], [True], [1.5], [None],
        ["a"] * 5000,
    ],
)  # fmt: skip
def test_refused(value):
    with pytest.raises(RequestError) as caught:
        parse_prompts(value, LIMITS)
    assert caught.value.param.startswith("prompt")


async def test_text_that_cannot_fit_is_refused_before_it_is_tokenized():
    class Untouched(FileTokenizer):
        def encode(self, text, **options):
            raise AssertionError("tokenized")

    encoder = PromptEncoder(byte_tokenizer(), LIMITS)
    encoder.tokenizer.__class__ = Untouched
    text = "word " * 10_000_000
    start = time.monotonic()
    with pytest.raises(RequestError, match="maximum context length is 100 tokens") as caught:
        await encoder.encode(text)
    assert time.monotonic() - start < 0.5 and caught.value.code == "context_length_exceeded"


async def test_long_runs_are_tokenized_quickly():
    tokenizer = FileTokenizer(shared("tokenizers/gpt2/tokenizer.json"))
    encoder = PromptEncoder(tokenizer, Limits(logits_size=50257, max_model_len=10**7))
    start = time.monotonic()
    assert len(await encoder.encode("a" * 2**20)) > 1000
    assert time.monotonic() - start < 5.0


async def test_truncation_keeps_the_end_and_allows_long_texts():
    encoder = PromptEncoder(byte_tokenizer(), LIMITS)
    assert await encoder.encode("x" * 5000, truncate=3) == encoder.tokenizer.encode("xxx")
    assert await encoder.encode(list(range(200)), truncate=2) == [198, 199]
    with pytest.raises(RequestError):
        await encoder.encode([1] * 101)


async def test_an_empty_prompt_needs_a_beginning():
    assert await PromptEncoder(byte_tokenizer(), LIMITS).encode("") == [byte_tokenizer().bos_token_id]
    without = byte_tokenizer()
    without._bos = None
    with pytest.raises(RequestError, match="cannot be empty"):
        await PromptEncoder(without, LIMITS).encode("")


async def test_without_a_tokenizer_only_ids():
    encoder = PromptEncoder(None, LIMITS)
    assert await encoder.encode([1, 2]) == [1, 2]
    with pytest.raises(RequestError, match="--skip-tokenizer-init"):
        await encoder.encode("a")
