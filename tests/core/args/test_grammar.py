"""The command line's grammar, problem by problem."""

from __future__ import annotations

import pytest

from engine.args.engine_args import CommandLine, ordered, raise_problems, read_command_line
from engine.args.flag import Flag, Problem
from engine.errors import ConfigError
from tests.core.args.installed import fake_entries


def read(*argv: str) -> CommandLine:
    return read_command_line(argv, entries=fake_entries())


def good(*argv: str) -> CommandLine:
    line = read(*argv)
    assert not line.problems, line.problems
    return line


def last_line(*argv: str) -> str:
    return ordered(read(*argv).problems)[-1].line()


@pytest.mark.parametrize("argv", [["--model", "demo"], ["demo"], ["demo", "--model", "demo"], ["--model=demo"], ["--", "demo"]])
def test_the_model_is_positional_or_a_flag(argv):
    assert good(*argv).args.model == "demo"


def test_two_models_are_refused():
    assert last_line("demo", "--model", "other") == "Two models are given: demo and --model other. Try: leave --model other out"
    assert "one model only" in last_line("demo", "other")


def test_a_second_word_of_a_command_with_prompts_is_a_prompt():
    line = read_command_line(["demo", "Once upon a time"], [Flag("--prompt", "each", [], "")], fake_entries())
    assert line.problems[-1].fix == "--prompt 'Once upon a time'"


def test_an_empty_value_is_quoted():
    assert last_line("demo", "--load-format=").startswith("--load-format '': no such plugin.")
    assert last_line("demo", "--port=").startswith("--port '': not an integer.")


def test_a_problem_found_twice_is_told_once():
    twice = Problem("--extensions x: no such plugin.", "leave it out", 3)
    with pytest.raises(ConfigError) as found:
        raise_problems([twice, Problem("--port x: not an integer."), Problem(twice.cause, twice.fix, 3)])
    assert found.value.line().count("no such plugin") == 1


def test_no_model_is_refused():
    assert last_line("--port", "1") == "No model is given. Try: name a directory, a hub repository, or the bundled model demo"


@pytest.mark.parametrize(
    ("argv", "dest", "value"),
    [
        (["-tp", "2"], "tensor_parallel_size", 2),
        (["-tp=2"], "tensor_parallel_size", 2),
        (["-O0"], "compilation_config", 0),
        (["-O", "0"], "compilation_config", 0),
        (["-O={'level': 0}"], "compilation_config", {"level": 0}),
        (["-q", "None"], "quantization", None),
        (["--tokenizer", ""], "tokenizer", None),
        (["--revision=None"], "revision", None),
        (["--max-model-len", "4k"], "max_model_len", 4000),
        (["--max-model-len", "4K"], "max_model_len", 4096),
        (["--max_model_le=7"], "max_model_len", 7),
        (["--enable-chunked-prefill"], "enable_chunked_prefill", True),
        (["--enable-chunked-prefill=FALSE"], "enable_chunked_prefill", False),
        (["--enable-chunked-prefill", "True"], "enable_chunked_prefill", True),
        (["--enable-prefix-caching"], "enable_prefix_caching", True),
        (["--no-enable-prefix-caching"], "enable_prefix_caching", False),
        (["--no_enable_prefix"], "enable_prefix_caching", False),
        (["--no-use-tqdm-on-load"], "use_tqdm_on_load", False),
        (["--served-model-name", "a", "b"], "served_model_name", ["a", "b"]),
        (["--served-model-name=a"], "served_model_name", ["a"]),
        (["--ignore-patterns", "a", "--ignore-patterns=b"], "ignore_patterns", ["a", "b"]),
        (["--seed", "-5"], "seed", -5),
        (["--swap-space", "2"], "swap_space", 2.0),
        (["--hf-overrides", '{"a": {"b": null}}'], "hf_overrides", {"a": {"b": None}}),
        (["--allowed-origins", '["https://a.example"]'], "allowed_origins", ["https://a.example"]),
        (["--port", "1", "--port", "2"], "port", 2),
        (["--trust-remote-code=true"], "trust_remote_code", True),
        (["--enforce-eager", "--enforce-eager=False"], "enforce_eager", False),
        (["--enable-prefix-caching=false"], "enable_prefix_caching", False),
        (["--no-enable-prefix-caching=true"], "enable_prefix_caching", False),
        (["--no-use-tqdm-on-load=false"], "use_tqdm_on_load", True),
    ],
)
def test_spellings(argv, dest, value):
    assert getattr(good("demo", *argv).args, dest) == value


def test_a_switch_does_not_swallow_the_model():
    line = good("--enable-chunked-prefill", "demo")
    assert (line.args.model, line.args.enable_chunked_prefill) == ("demo", True)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--lod-format", "auto"], "--lod-format: no such flag. Did you mean --load-format? Try: --load-format"),
        (["--max-num"], "--max-num is the beginning of"),
        (["--port"], "--port expects a value. Try: --port 8000"),
        (["--port", "--seed", "1"], "--port expects a value."),
        (["--port", "x"], "--port x: not an integer."),
        (["--port", "1.5"], "--port 1.5: not an integer."),
        (["--swap-space", "nan"], "--swap-space nan: not a finite number."),
        (["--enforce-eager=yes"], "--enforce-eager yes: neither true nor false. Try: --enforce-eager"),
        (["--enable-chunked-prefill=maybe"], "--enable-chunked-prefill maybe: neither true nor false."),
        (["--hf-overrides", "{a}"], "--hf-overrides {a}: not valid JSON"),
        (["--hf-overrides", "[1]"], "--hf-overrides [1]: not a JSON object."),
        (["--hf-overrides", '{"a":1,"a":2}'], "the key 'a' occurs twice"),
        (["--hf-overrides", "[" * 100_000], "nested too deeply"),
        (["--compilation-config", "fast"], "--compilation-config fast: neither an integer nor a JSON object."),
        (["--block-size", "12"], "--block-size 12: not one of 8, 16, 32, 64, 128."),
        (["--dtype", "float61"], "Try: --dtype float16"),
        (["--limit-mm-per-prompt", "image"], "'image' is not KEY=INT"),
        (["--limit-mm-per-prompt", "image=1,image=2"], "given twice"),
        (["--allowed-origins", "*"], "--allowed-origins *: not valid JSON"),
        (["--served-model-name"], "--served-model-name expects one value or more"),
        (["--collect-detailed-traces", "model,engine"], "--collect-detailed-traces model,engine: not one of model, worker, all."),
        (["--max-lora-rank", "7"], "--max-lora-rank 7: not one of 8, 16"),
        (["--lora-extra-vocab-size", "1"], "--lora-extra-vocab-size 1: not one of 256, 512"),
    ],
)
def test_refusals_name_the_flag_and_the_value(argv, says):
    problem = read("demo", *argv).problems[0]
    assert says in problem.line()
    assert problem.status == 2
    assert problem.fix


def test_all_problems_are_told_at_once_and_the_first_usage_error_last():
    problems = ordered(read("demo", "--port", "x", "--lod-format=y", "--load-format", "safetensor", "--enable-lora").problems)
    lines = [problem.line() for problem in problems]
    assert len(lines) == 4
    assert lines[0].startswith("--load-format safetensor: no such plugin.")
    assert lines[-1].startswith("--port x")


def test_an_unknown_flag_takes_its_value_along():
    line = read("--lod-format", "auto", "demo")
    assert len(line.problems) == 1
    assert line.args.model == "demo"


def test_words_that_look_like_values_of_flags_are_shortened():
    assert len(last_line("demo", "--hf-overrides", "x" * 10_000)) < 300
