"""Prompts for a model in this process's own engine, and the times of its tokens."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.cli.bench.loads import Sizes, draw_prompts, draw_sizes
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from engine.llm import LLM


@dataclass(frozen=True)
class Timed:
    """One request: seconds from sending it to each of its tokens."""

    prompt: int
    tokens: list[float]


def ordinary_ids(llm: LLM) -> list[int]:
    """Every id that is ordinary text."""
    tokenizer = llm.get_tokenizer()
    special = tokenizer.special_ids() if tokenizer is not None else frozenset()
    size = min(llm.config.model.info.vocab_size, tokenizer.size() if tokenizer is not None else 2**62)
    return [token for token in range(size) if token not in special]


def make_load(llm: LLM, own: Mapping[str, Any], count: int) -> tuple[list[list[int]], list[Sizes]]:
    """Prompts and their sizes. Raises ConfigError where a request would not fit into the model's length."""
    source = random.Random(own["prompt_seed"])
    sizes = draw_sizes(count, own["input_len"], own["output_len"], own["lengths"], source)
    longest = max(size.input + size.output for size in sizes)
    if longest > llm.config.model.max_model_len:
        raise ConfigError(
            f"--input-len {own['input_len']} and --output-len {own['output_len']} need {longest} tokens, more than the model length "
            f"{llm.config.model.max_model_len}.", fix="smaller ones",
        )  # fmt: skip
    ordinary = ordinary_ids(llm)
    return draw_prompts(sizes, ordinary, source.choices(ordinary, k=own["shared_prefix"]), source), sizes


def setting(llm: LLM, own: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured."""
    model = llm.config.model
    return {
        "model": model.checkpoint.model, "dtype": model.dtype, "device": llm.config.device.name, "lengths": own["lengths"],
        "input_len": own["input_len"], "output_len": own["output_len"],
    }  # fmt: skip


class Engine:
    """Requests straight to the engine of an LLM: no text is made of the tokens, so their times are the engine's."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._numbers = itertools.count()

    def run(self, prompts: Sequence[list[int]], sizes: Sequence[Sizes]) -> list[Timed]:
        """All requests at once, greedy, each as long as its size says."""
        return self._llm.background.wait(self._run(prompts, sizes))

    def call(self, method: str, **arguments: Any) -> Any:
        """The first worker's answer to an operation."""
        return self._llm.background.wait(self._llm.client.call(method, **arguments))[0]

    async def _run(self, prompts: Sequence[list[int]], sizes: Sequence[Sizes]) -> list[Timed]:
        began = time.perf_counter()
        return list(await asyncio.gather(*(self._one(prompt, size.output, began) for prompt, size in zip(prompts, sizes, strict=True))))

    async def _one(self, prompt: list[int], output: int, began: float) -> Timed:
        from engine.plugin.request import Request, SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=output, ignore_eos=True, seed=0)
        request = Request(id=f"bench-{next(self._numbers)}", prompt_token_ids=prompt, params=params, arrival=time.monotonic())
        times: list[float] = []
        async for answer in self._llm.client.generate(request):
            if answer.error is not None:
                raise EngineError(answer.error)
            times += [time.perf_counter() - began] * len(answer.token_ids)
        return Timed(len(prompt), times)
