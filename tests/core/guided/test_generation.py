"""Guided decoding end to end with the demo model, together with what else a request may ask for."""

from __future__ import annotations

import json
import re

import pytest

from engine.errors import RequestError
from engine.llm import LLM
from engine.plugin import GuideSpec, SamplingParams

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
}
JSON = GuideSpec("json", PERSON, "xgrammar:disable-any-whitespace")
ASK = [{"role": "user", "content": "Who is it?"}]


@pytest.fixture(scope="module")
def llm():
    with LLM("demo", max_model_len=256, max_num_seqs=8, num_gpu_blocks_override=24, use_tqdm_on_load=False) as model:
        yield model


def person(text):
    value = json.loads(text)
    assert set(value) == {"name", "age"} and 0 <= value["age"] <= 150 and len(value["name"]) <= 12
    return value


def test_several_choices_with_logprobs_and_penalties(llm):
    params = SamplingParams(guide=JSON, n=6, max_tokens=100, logprobs=2, seed=1, repetition_penalty=1.1, presence_penalty=0.5)
    (answer,) = llm.chat(ASK, params, use_tqdm=False)
    assert len({choice.text for choice in answer.outputs}) > 1
    for choice in answer.outputs:
        assert choice.finish_reason == "stop"
        person(choice.text)
        assert len(choice.logprobs) == len(choice.token_ids)


def test_preempted_sequences_go_on_in_their_grammar(llm):
    guide = GuideSpec("regex", "([a-z]{3}-){30}end")
    params = [SamplingParams(guide=guide, max_tokens=180, seed=seed) for seed in range(8)]
    before = llm.stats().preemptions
    crowded = llm.generate(["Say it: "] * 8, params, use_tqdm=False)
    assert llm.stats().preemptions > before
    alone = [llm.generate("Say it: ", each, use_tqdm=False)[0] for each in params[:3]]
    for answer in crowded:
        (choice,) = answer.outputs
        if choice.finish_reason == "stop":
            assert re.fullmatch(guide.value, choice.text)
        else:
            assert re.match("([a-z]{3}-)*[a-z]{0,3}$", choice.text)
    for together, single in zip(crowded, alone, strict=False):
        assert together.outputs[0].token_ids == single.outputs[0].token_ids


def test_streams_that_come_and_go_have_the_tokens_they_have_alone(llm):
    """Masks are worked out a step ahead; streams end by length, by their grammar and by a stop string, and others begin."""
    guides = (JSON, GuideSpec("regex", "([a-z]{3}-){30}end"), None, GuideSpec("regex", "[a-y ]{20,60}"))
    params = [
        SamplingParams(guide=guides[i % 4], max_tokens=20 + 7 * i, seed=i, temperature=float(i % 5 < 4), stop=("e",) if i == 3 else ())
        for i in range(20)
    ]
    prompts = [f"Item {i}: " for i in range(20)]
    crowded = llm.generate(prompts, params, use_tqdm=False)
    for prompt, each, together in zip(prompts, params, crowded, strict=True):
        alone = llm.generate(prompt, each, use_tqdm=False)[0]
        assert together.outputs[0].token_ids == alone.outputs[0].token_ids


def test_a_cached_prefix_changes_nothing(llm):
    params = SamplingParams(guide=JSON, max_tokens=100, temperature=0.0)
    prompt = "The quick brown fox jumps over the lazy dog. " * 4
    first = llm.generate(prompt, params, use_tqdm=False)[0]
    again = llm.generate(prompt, params, use_tqdm=False)[0]
    assert again.num_cached_tokens > 0
    assert first.outputs[0].token_ids == again.outputs[0].token_ids


def test_a_constraint_that_forbids_nothing_changes_nothing(llm):
    plain = SamplingParams(max_tokens=24, seed=5, logprobs=1)
    free = SamplingParams(max_tokens=24, seed=5, logprobs=1, guide=GuideSpec("regex", r"(.|\n)*"))
    a, b = (llm.chat(ASK, params, use_tqdm=False)[0].outputs[0] for params in (plain, free))
    assert a.token_ids == b.token_ids


def test_stop_strings_and_choices(llm):
    choice = GuideSpec("choice", ["alpha", "beta"])
    for seed in range(4):
        (got,) = llm.chat(ASK, SamplingParams(guide=choice, seed=seed, max_tokens=20), use_tqdm=False)[0].outputs
        assert got.text in ("alpha", "beta") and got.finish_reason == "stop"
    cut = SamplingParams(guide=GuideSpec("regex", "aaa,bbb"), stop=(",",), max_tokens=20)
    (got,) = llm.chat(ASK, cut, use_tqdm=False)[0].outputs
    assert got.text == "aaa"


def test_more_tokens_than_the_grammar_has(llm):
    """min_tokens makes texts longer where the grammar lets it, and ends with the grammar where it does not."""
    short = SamplingParams(guide=GuideSpec("choice", ["alpha"]), min_tokens=30, max_tokens=40, seed=0)
    (got,) = llm.chat(ASK, short, use_tqdm=False)[0].outputs
    assert got.text == "alpha" and got.finish_reason == "stop"
    longer = SamplingParams(guide=GuideSpec("regex", "[a-z ]*"), min_tokens=20, max_tokens=40, seed=0)
    (got,) = llm.chat(ASK, longer, use_tqdm=False)[0].outputs
    assert len(got.token_ids) >= 20 and re.fullmatch("[a-z ]*", got.text) and len(got.text) >= 19


def test_the_grammar_begins_after_its_marker(llm):
    tokenizer = llm.get_tokenizer()
    marker = tokenizer.token_id("</think>")
    bias = {marker: 100.0}
    guide = GuideSpec("choice", ["yes", "no"], start_after=(marker,))
    params = SamplingParams(guide=guide, max_tokens=30, seed=0, logit_bias=bias, skip_special_tokens=False)
    (got,) = llm.chat(ASK, params, use_tqdm=False)[0].outputs
    answer = got.text.split("</think>", 1)[1]
    assert answer.lstrip("\n") in ("yes", "no") and len(answer) < 12  # a blank line may come between


def test_the_backend_that_a_flag_names_is_loaded_at_the_start(llm):
    assert not llm.config.guided.warm
    with LLM("demo", max_model_len=128, max_num_seqs=2, guided_decoding_backend="xgrammar", use_tqdm_on_load=False) as warm:
        guides = warm._service.guides
        assert guides._compiling.pid is not None and guides._used == {"xgrammar"}


def test_refusals_name_the_field(llm):
    with pytest.raises(RequestError) as refused:
        llm.chat(ASK, SamplingParams(guide=GuideSpec("json", {"$ref": "http://x.y"})), use_tqdm=False)
    assert refused.value.param == "guide"
    with pytest.raises(RequestError, match="kind 'xml' is unknown"):
        llm.chat(ASK, SamplingParams(guide=GuideSpec("xml", "a")), use_tqdm=False)
