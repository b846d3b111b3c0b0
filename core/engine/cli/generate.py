"""``engine generate``: continue prompts, offline."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from engine.args.flag import Flag
from engine.cli.sampling import SAMPLING, sampling_params
from engine.cli.start import Command, open_model
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.outputs import RequestOutput

COMMAND = Command(
    "generate", "engine generate MODEL --prompt TEXT [--prompt TEXT …] [flags]   (or the prompt on standard input)",
    "Continue prompts, offline.",
    own=(
        Flag("--prompt", "each", [], "Text to continue. Repeatable; without it, standard input is the prompt.", metavar="TEXT"),
        *SAMPLING,
        Flag("--n", "int", 1, "Outputs per prompt."),
        Flag("--ignore-eos", "flag", False, "Go on after the end-of-sequence token."),
        Flag("--json", "flag", False, "Print one JSON object per prompt."),
    ),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Print the outputs in the prompts' order."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    prompts = [_checked(prompt) for prompt in line.own["prompt"]] or [_standard_input()]
    with open_model(COMMAND, line) as llm:
        params = sampling_params(
            llm.get_default_sampling_params(), line.own, n=line.own["n"], ignore_eos=line.own["ignore_eos"]
        )
        for answer in llm.generate(prompts, params, use_tqdm=len(prompts) > 1 and sys.stderr.isatty()):
            _print(answer, line.own["json"])
    return 0


def _checked(prompt: str) -> str:
    """An argument as Python reads it has half surrogates for the bytes that its locale lacks; UTF-8 they may be all the same."""
    try:
        return os.fsencode(prompt).decode("utf-8") if any("\ud800" <= letter <= "\udfff" for letter in prompt) else prompt
    except UnicodeError as error:
        raise ConfigError(f"--prompt {prompt!r}: not UTF-8.", fix="a prompt in UTF-8") from error


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise ConfigError("No prompt is given.", fix="--prompt TEXT")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} ({error.object[error.start]:#04x})"
        raise ConfigError(f"Standard input, which is the prompt, is not UTF-8: {where}.", fix="a prompt in UTF-8") from error
    if not text:
        raise ConfigError("Standard input, which is the prompt, is empty.", fix="--prompt TEXT")
    return text


def _print(answer: RequestOutput, as_json: bool) -> None:
    if not as_json:
        for output in answer.outputs:
            print(f"{answer.prompt or ''}{output.text}")
        return
    outputs = [
        {"text": output.text, "token_ids": list(output.token_ids), "finish_reason": output.finish_reason} for output in answer.outputs
    ]
    print(json.dumps({"prompt": answer.prompt, "prompt_token_ids": list(answer.prompt_token_ids), "outputs": outputs}))
