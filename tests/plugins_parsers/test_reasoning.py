"""Reasoning parsers on tables of outputs, in any split; what the prompt says; where thinking stands."""

from __future__ import annotations

from importlib import import_module

import pytest

from engine.errors import ConfigError, UnavailablePlugin
from tests.plugins_parsers.kit import Vocabulary, check_splits, message, run
from tests.plugins_parsers.reasoning_tables import DEEPSEEK_R1, GPT_OSS, GRANITE, TAGGED, TAGS

PROMPTS = {"said": "<user>Hi<assistant>\n", "open": "<user>Hi<assistant>\nSTART\n", "closed": "<user>Hi<assistant>\nSTART\n\nEND\n\n"}


def make_parser(name: str, *tags: str, **options):
    module = import_module(f"engine_parsers.reasoning.{name}")
    vocabulary = Vocabulary(tags, special=("<eos>", "<user>", "<assistant>"))
    given = {"options": module.Options(**options)} if options else {}
    if name == "tag_pair" and not options:
        given = {"options": None}
    accepted = {} if name == "granite" else given
    return module.engine_create_reasoning_parser(vocabulary, **accepted), vocabulary


def filled(text: str, tags: tuple[str, str]) -> str:
    return text.replace("START", tags[0]).replace("END", tags[1])


@pytest.mark.parametrize("row", DEEPSEEK_R1)
def test_deepseek_r1(row):
    check_row("deepseek_r1", ("<think>", "</think>"), row)


@pytest.mark.parametrize("name", [*TAGS, "tag_pair"])
@pytest.mark.parametrize("row", TAGGED)
def test_tags(name, row):
    check_row(name, TAGS.get(name, ("<think>", "</think>")), row)


@pytest.mark.parametrize("row", TAGGED)
def test_granite(row):
    """Its sentences are no tokens, so the prompt's end is read as text."""
    check_row("granite", GRANITE, row, tokens=())
    if row[0] == "said":
        check_row("granite", ("Here's my thought process:", "Here's my response:"), row, tokens=())


@pytest.mark.parametrize("row", GPT_OSS)
def test_gpt_oss(row):
    check_row("gpt_oss", ("", ""), row, tokens=("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "<|return|>"))


def check_row(name, tags, row, tokens=None):
    state, output, reasoning, content = row
    parser, vocabulary = make_parser(name, *(tags if tokens is None else tokens))
    prompt = vocabulary.encode(filled(PROMPTS[state], tags))
    found = check_splits(lambda: parser.start(prompt), filled(output, tags))
    assert found == message(filled(content, tags), reasoning=filled(reasoning, tags))


def test_earlier_turns_and_users_texts_do_not_count():
    parser, vocabulary = make_parser("qwen3", "<think>", "</think>")
    earlier = "<user>Hi<assistant><think>a</think>b<eos><user>and</user><assistant>"
    prompt = vocabulary.encode(earlier)
    assert parser.thinking(prompt).state == "possible"
    said = vocabulary.encode("<user>") + vocabulary.encode("what is <think>?", allow_special=False) + vocabulary.encode("<assistant>")
    assert parser.thinking(said).state == "possible"
    assert parser.thinking([*said, *vocabulary.encode("<think>\nLet me")]).state == "open"


def test_thinking_is_counted_and_ends():
    parser, _ = make_parser("qwen3", "<think>", "</think>")
    state = parser.start([])
    seen = []
    for piece in ("<think>", "a", "b", "</think>", "c"):
        seen.append(state.thinking())
        state.feed(piece, (1,))
    assert seen == [False, True, True, True, False]
    assert state.reasoning_ended()
    always, _ = make_parser("deepseek_r1", "<think>", "</think>")
    assert always.start([]).thinking() and not always.start([]).reasoning_ended()


def test_boundaries_are_the_vocabulary_s_tokens():
    parser, vocabulary = make_parser("qwen3", "<think>", "</think>")
    thinking = parser.thinking([])
    assert thinking.start == (vocabulary.token_id("<think>"),)
    assert thinking.end == thinking.forced == (vocabulary.token_id("</think>"),)
    none, _ = make_parser("qwen3")
    assert none.thinking([]).start == none.thinking([]).end == ()
    channels, vocabulary = make_parser("gpt_oss", "<|channel|>", "<|message|>")
    assert channels.thinking([]).state == "open"
    assert channels.thinking(vocabulary.encode("<|channel|>final<|message|>")).state == "closed"


def test_deepseek_r1_needs_its_tokens():
    with pytest.raises(UnavailablePlugin, match="</think>"):
        make_parser("deepseek_r1", "<think>")


def test_tag_pair_takes_any_tags():
    parser, _ = make_parser("tag_pair", start="((", end="))", always=True, trim=False)
    assert check_splits(lambda: parser.start([]), "a ) b))\nc") == message("\nc", reasoning="a ) b")
    with pytest.raises(ConfigError, match="two different"):
        make_parser("tag_pair", start="x", end="x")


LONG = 1_000_000
SHAPES = {
    "all reasoning": "word " * (LONG // 5), "breaks": "\n" * LONG, "beginnings of tags": "</thin" * (LONG // 6), "brackets": "<" * LONG,
    "tags": "<think></think>" * (LONG // 15), "answer": "<think>a</think>" + "word " * (LONG // 5),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3", "glm45", "granite", "mistral", "seed_oss", "gpt_oss", "tag_pair"])
def test_a_million_characters_take_linear_time(name, shape, linear):
    options = {"start": "<think>", "end": "</think>"} if name == "tag_pair" else {}
    parser, _ = make_parser(name, "<think>", "</think>", **options)
    first, last = TAGS.get(name, GRANITE if name == "granite" else ("<think>", "</think>"))
    text = SHAPES[shape].replace("<think>", first).replace("</think>", last)
    linear(lambda: parser.start([]), text)
    assert run(lambda: parser.start([]), [text[:1000]])


@pytest.mark.parametrize("name", ["qwen3", "tag_pair", "glm45", "mistral", "seed_oss", "granite", "deepseek_r1"])
@pytest.mark.parametrize("content", ["\n\n{}", "\nyes", "none\n", "\n"])
def test_line_breaks_that_belong_to_the_answer_stay(name, content):
    tags = {"mistral": ("[THINK]", "[/THINK]"), "seed_oss": ("<seed:think>", "</seed:think>")}.get(name, ("<think>", "</think>"))
    if name == "granite":
        tags = ("Here is my thought process:", "Here is my response:")
    text = f"{tags[0]}\nI think.\n{tags[1]}{content}"
    for cuts in range(len(text)):
        parser, _ = make_parser(name, *(() if name == "granite" else tags))
        state = parser.start(())
        state.keep_breaks()
        deltas = [state.feed(text[:cuts], ()), state.feed(text[cuts:], ()), state.finish()]
        assert "".join(delta.content for delta in deltas) == content
        assert "I think." in "".join(delta.reasoning for delta in deltas)
