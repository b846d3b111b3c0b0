"""The offline API as people use it, and misuse it: every mistake is named, and the engine goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from engine import LLM, SamplingParams
from engine.errors import ConfigError, EngineError, ModelFileError, RequestError
from tests.integration.serving import REPOSITORY, ROOTS

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(model="demo", max_num_seqs=8, seed=3, use_tqdm_on_load=False) as model:
        yield model


def texts(answers: list[Any]) -> list[str]:
    return [output.text for answer in answers for output in answer.outputs]


def test_every_form_of_a_prompt(llm: LLM) -> None:
    ids = llm.encode("Hello world")
    forms: list[Any] = ["Hello world", {"prompt": "Hello world"}, {"prompt_token_ids": ids}, ids]
    alone = [texts(llm.generate(form, GREEDY, use_tqdm=False)) for form in forms]
    assert alone == [alone[0]] * 4 and len(alone[0]) == 1
    listed = llm.generate(forms, GREEDY, use_tqdm=False)
    assert texts(listed) == alone[0] * 4
    assert [answer.prompt for answer in listed] == ["Hello world", "Hello world", None, None]
    assert {answer.prompt_token_ids for answer in listed} == {tuple(ids)}
    assert llm.generate([], GREEDY, use_tqdm=False) == []


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        (None, RequestError, "NoneType"), (5, RequestError, "int"), (["a", None], RequestError, "NoneType"),
        ("", RequestError, "cannot be empty"),
        ({"prompt": 5}, RequestError, "int"), ({"promt": "a"}, ConfigError, "promt"), ({}, ConfigError, "no key"),
        ({"prompt_token_ids": []}, RequestError, "empty list"), ({"prompt_token_ids": "abc"}, RequestError, "str"),
        ({"prompt_token_ids": [1.5]}, RequestError, "whole numbers"), ({"prompt_token_ids": [2048]}, RequestError, "2047"),
        ({"prompt_token_ids": [-1]}, RequestError, "-1"), ("word " * 5000, RequestError, "maximum context length is 2048"),
    ],
)  # fmt: skip
def test_what_is_no_prompt(llm: LLM, prompt: Any, error: type[EngineError], says: str) -> None:
    with pytest.raises(error, match=says):
        llm.generate(prompt, GREEDY, use_tqdm=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1.0}, "temperature"), ({"temperature": "hot"}, "temperature"), ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"), ({"stop": 5}, "stop"), ({"stop": [5]}, "stop"), ({"logit_bias": {"5": 1.0}}, "logit_bias"),
        ({"logit_bias": {2048: 1.0}}, "logit_bias"), ({"n": 9}, "n"), ({"seed": "x"}, "seed"), ({"top_p": 0.0}, "top_p"),
    ],
)  # fmt: skip
def test_wrong_params_name_their_field(llm: LLM, fields: dict[str, Any], param: str) -> None:
    """Also those of a wrong type, which the engine's process could not even read."""
    with pytest.raises(RequestError) as caught:
        llm.generate("Hello", SamplingParams(**fields), use_tqdm=False)
    assert caught.value.param == param
    assert texts(llm.generate("Hello", GREEDY, use_tqdm=False))


def test_params_are_one_or_one_each(llm: LLM) -> None:
    answers = llm.generate(["Hello", "World"], [GREEDY, SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)], use_tqdm=False)
    assert [len(answer.outputs[0].token_ids) for answer in answers] == [6, 2]
    for wrong in ([GREEDY], {"temperature": 1}):
        with pytest.raises(ConfigError):
            llm.generate(["Hello", "World"], wrong, use_tqdm=False)  # type: ignore[arg-type]


def test_chat_whole_streamed_and_with_tools(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=60)
    (whole,) = llm.chat(QUESTION, params, use_tqdm=False)
    assert whole.outputs[0].text.endswith("42") and whole.outputs[0].finish_reason == "stop"
    assert "".join(llm.stream(QUESTION, params)) == whole.outputs[0].text
    assert texts(llm.chat([QUESTION, QUESTION], params, use_tqdm=False)) == [whole.outputs[0].text] * 2
    assert texts(llm.chat(QUESTION, params, chat_template_kwargs={"enable_thinking": False}, use_tqdm=False)) == ["42"]
    call = texts(llm.chat([{"role": "user", "content": "What is the weather in Paris?"}], params, tools=[WEATHER], use_tqdm=False))[0]
    assert '"get_weather"' in call and '"Paris"' in call
    with pytest.raises(RequestError, match="wizard"):
        llm.chat([{"role": "wizard", "content": "Hi"}], params, use_tqdm=False)
    cut = SamplingParams(max_tokens=1, truncate_prompt_tokens=5)
    assert len(llm.chat(QUESTION, cut, use_tqdm=False)[0].prompt_token_ids) == 5


def test_leaving_a_stream_aborts_it(llm: LLM) -> None:
    pieces = llm.stream(QUESTION, SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator
    assert texts(llm.generate("Hello", GREEDY, use_tqdm=False))
    assert llm.stats().running == 0 and llm.stats().pages_used == 0


def test_a_closed_model_says_so_and_wrong_arguments_are_named() -> None:
    model = LLM(model="demo", max_num_seqs=2, max_model_len=256, use_tqdm_on_load=False)
    model.close()
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.generate("Hello", use_tqdm=False)
    with pytest.raises(ConfigError, match="Did you mean max_model_len"):
        LLM(model="demo", max_model_length=3)
    with pytest.raises(ModelFileError, match="/nope"):
        LLM(model="/nope")


def engine(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(REPOSITORY / root) for root in ROOTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "engine", *words], input=given, capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_generate_on_the_command_line() -> None:
    line = ("generate", "demo", "--temperature", "0", "--max-tokens", "4", "--ignore-eos", "--json")
    found = engine(*line, "--prompt", "Hello", "--prompt", "World")
    assert found.returncode == 0, found.stderr
    answers = [json.loads(text) for text in found.stdout.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["Hello", "World"]
    assert all(len(answer["outputs"][0]["token_ids"]) == 4 for answer in answers)
    assert json.loads(engine(*line, given="Hello").stdout) == answers[0]
    refused = engine("generate", "demo", "--prompt", "Hello", "--temperature", "-1")
    assert refused.returncode != 0 and "temperature cannot be -1" in refused.stderr.splitlines()[-1]


def test_chat_on_the_command_line() -> None:
    line = ("chat", "demo", "--temperature", "0", "--template-options", '{"enable_thinking": false}')
    assert engine(*line, "--message", "What is 17 + 25?").stdout.splitlines() == ["42"]
    assert engine(*line, given="What is 17 + 25?\n\n").stdout.splitlines() == ["42"]
