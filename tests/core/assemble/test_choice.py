"""Stop strings, ends and counts of one choice."""

from __future__ import annotations

import random

import pytest

from engine.assemble.choice import Choice, rank_choices
from engine.assemble.stops import StopStrings
from engine.messages import Output
from engine.plugin import FinishReason, SamplingParams, TokenLogprobs
from tests.core.server.real_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()


def run(text, *, split=1, end=FinishReason.LENGTH, stop_reason=None, extra=(), **params):
    choice = Choice(TOKENIZER, SamplingParams(**params))
    ids = [*TOKENIZER.encode(text), *extra]
    deltas = []
    for at in range(0, len(ids), split):
        last = at + split >= len(ids)
        ending = {"finish_reason": end, "stop_reason": stop_reason} if last else {}
        deltas.append(choice.feed(Output(id="r", token_ids=ids[at : at + split], **ending)))
        if deltas[-1].finish_reason:
            break
    return choice, "".join(delta.text for delta in deltas), deltas


@pytest.mark.parametrize("split", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("stop", "include", "text", "count"),
    [
        (("wor",), False, "say abc ", 10), (("wor",), True, "say abc wor", 10), (("zzz",), False, "say abc world!", 13),
        (("abc", "c w"), False, "say ", 7), (("c w", "bc w"), False, "say a", 9), (("say",), False, "", 3),
        (("d!", "!"), False, "say abc worl", 13),
    ],
)  # fmt: skip
def test_stop_strings_cut_before_the_match(split, stop, include, text, count):
    choice, shown, deltas = run("say abc world!", split=split, stop=stop, include_stop_str_in_output=include)
    assert shown == text
    assert deltas[-1].finish_reason == ("length" if stop == ("zzz",) else "stop")
    expected = len(TOKENIZER.encode("say abc world!")) if stop == ("zzz",) else None
    consumed = TOKENIZER.decode(TOKENIZER.encode("say abc world!")[: choice.tokens])
    if expected is None:
        assert deltas[-1].stop_reason in stop and deltas[-1].stop_reason in consumed
        assert deltas[-1].stop_reason not in TOKENIZER.decode(TOKENIZER.encode("say abc world!")[: choice.tokens - 1])
    else:
        assert choice.tokens == expected


def test_a_partial_stop_string_is_held_back_and_released():
    stops = StopStrings(("<end>",))
    assert stops.push("abc<e").text == "abc"
    assert stops.push("n").text == ""
    assert stops.push("x<").text == "<enx"
    assert stops.finish() == "<"


def test_streams_never_show_part_of_a_stop_string():
    generator = random.Random(2)
    for _ in range(300):
        text = "".join(generator.choice("ab<>") for _ in range(30))
        stop = "".join(generator.choice("ab<>") for _ in range(generator.choice((1, 2, 3))))
        stops, shown, at = StopStrings((stop,)), "", 0
        while at < len(text):
            count = generator.choice((1, 2, 5))
            match = stops.push(text[at : at + count])
            shown += match.text
            at += count
            if match.stop:
                break
        else:
            shown += stops.finish()
        assert shown == text.split(stop)[0]


def test_min_tokens_come_before_any_stop_string():
    _, shown, deltas = run("ab ab ab ab", stop=("ab",), min_tokens=4)
    assert shown == "ab ab " and deltas[-1].stop_reason == "ab"


def test_the_ending_token_is_no_text_but_counts():
    eos = TOKENIZER.eos_token_id
    choice, shown, deltas = run("abc", extra=[eos], end=FinishReason.STOP)
    assert (shown, choice.tokens, deltas[-1].stop_reason) == ("abc", 4, None)
    stop = TOKENIZER.encode("!")
    _, shown, deltas = run("abc", extra=stop, end=FinishReason.STOP, stop_reason=stop[0])
    assert shown == "abc" and deltas[-1].stop_reason == stop[0]
    _, shown, _ = run("abc", extra=stop, end=FinishReason.STOP, stop_reason=stop[0], include_stop_str_in_output=True)
    assert shown == "abc!"


def test_tokens_after_a_stop_string_do_not_count():
    choice, shown, deltas = run("abXcdefgh", split=9, stop=("X",))
    assert shown == "ab" and choice.tokens == 3 and len(deltas[-1].token_ids) == 3 and not deltas[-1].ended_early
    choice, shown, deltas = run("abXcdefgh", split=4, stop=("X",))
    assert deltas[-1].ended_early


def test_half_a_character_at_the_end_is_shown_as_broken():
    ids = TOKENIZER.encode("a🤖")[:-1]
    choice = Choice(TOKENIZER, SamplingParams())
    delta = choice.feed(Output(id="r", token_ids=ids, finish_reason=FinishReason.LENGTH))
    assert delta.text == "a\ufffd"


def test_ranking():
    choices = []
    for value in (-3.0, -1.0, -2.0, -1.0):
        choice = Choice(TOKENIZER, SamplingParams(logprobs=0))
        choice.feed(Output(id="r", token_ids=[5], logprobs=[TokenLogprobs(5, value, 1, [], [])], finish_reason=FinishReason.LENGTH))
        choices.append(choice)
    assert rank_choices(choices, 3) == [1, 3, 2]
