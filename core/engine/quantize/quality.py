"""Perplexity of a text, or of the answers in a few conversations that come with the engine, by the engine itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.errors import ConfigError
from engine.llm import LLM
from engine.outputs import RequestOutput
from engine.plugin.request import SamplingParams

#: Tokens that are read together, where the model's context allows.
WINDOW = 512
#: Bytes of a text that are read at most.
_TEXT_LIMIT = 8 << 20
#: Flags of the engine that hold for the source and for what is made of it.
SHARED_FLAGS = (
    "device", "dtype", "max_model_len", "gpu_memory_utilization", "num_gpu_blocks_override", "trust_remote_code", "plugin", "max_num_seqs",
)  # fmt: skip


class Perplexity(NamedTuple):
    """e to the mean negative log-likelihood of ``tokens`` tokens, each given those before it in its window."""

    value: float
    tokens: int


def read_text(path: Path) -> str:
    """A text to measure with. Raises :class:`ConfigError` for one that cannot be read."""
    try:
        if path.stat().st_size > _TEXT_LIMIT:
            raise ConfigError(f"--text {path} has {path.stat().st_size} bytes; at most {_TEXT_LIMIT} are read.", fix="a shorter text")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text {path} cannot be read: {error}.", fix="--text with a file of UTF-8 text") from error
    if not text.strip():
        raise ConfigError(f"--text {path} is empty.", fix="--text with a file of UTF-8 text")
    return text


def perplexity(model: str, flags: dict[str, Any], text: str | None, limit: int) -> Perplexity | None:
    """Of at most ``limit`` tokens of ``text`` (None: of the answers in the bundled conversations, as the model's template renders them).

    None where the model has no tokenizer. Raises what a start of the engine raises.
    """
    with LLM(model, disable_log_stats=True, **flags) as llm:
        tokenizer = llm.get_tokenizer()
        if tokenizer is None:
            return None
        window = min(WINDOW, llm.config.model.max_model_len - 1)
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        if text is None and tokenizer.chat_template():
            return _of_answers(llm, params, limit)
        ids = llm.encode(text if text is not None else "\n\n".join(plain(talk) for talk in conversations()))[:limit]
        windows = [ids[start : start + window] for start in range(0, len(ids), window)]
        prompts = [{"prompt_token_ids": each} for each in windows if len(each) > 1]
        return _score(llm.generate(prompts, params, use_tqdm=False), limit) if prompts else None


def conversations() -> list[list[dict[str, str]]]:
    """The bundled ones: messages with role and content, which the bundled model was not trained on."""
    lines = resources.files("engine.quantize").joinpath("conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def plain(talk: list[dict[str, str]]) -> str:
    """A conversation as text, for models without a template."""
    return "\n".join(message["content"] for message in talk)


def _of_answers(llm: LLM, params: SamplingParams, limit: int) -> Perplexity | None:
    """What follows the last question alone: nobody was to learn what people ask."""
    talks = conversations()
    options = {"enable_thinking": False}
    once = msgspec.structs.replace(params, prompt_logprobs=None)
    asked = llm.chat([talk[:-1] for talk in talks], once, chat_template_kwargs=options, use_tqdm=False)
    whole = llm.chat(talks, params, chat_template_kwargs=options, add_generation_prompt=False, use_tqdm=False)
    starts = [_common(before.prompt_token_ids, answer.prompt_token_ids) for before, answer in zip(asked, whole, strict=True)]
    return _score(whole, limit, starts)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the beginning that both have."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def _score(answers: Sequence[RequestOutput], limit: int, starts: Sequence[int] | None = None) -> Perplexity | None:
    """``starts``: the first position of each prompt that counts."""
    total, count = 0.0, 0
    for number, answer in enumerate(answers):
        if count >= limit:
            break
        pairs = list(zip(answer.prompt_token_ids, answer.prompt_logprobs or (), strict=False))
        for token, entry in pairs[starts[number] if starts else 0 :]:
            if entry is not None:
                total += entry[token].logprob
                count += 1
    return Perplexity(math.exp(-total / count), count) if count else None
