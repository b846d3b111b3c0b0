"""Runs every pair of features and writes docs/combinations.md and what ``engine plan`` shows of it; ``--check`` compares."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from engine.llm import LLM
from engine.plugin.host import PluginHost
from engine.server.generation import Generation
from engine.server.openai.answer import Collected
from engine.server.openai.chat import prepare
from engine.server.openai.protocol import ChatBody
from engine.server.parsing import Parsers, make_parsers
from tools.combinations.features import CROWD, FEATURES, MORE_PAGES, PLAIN, Answer, Feature, body, problem

ROOT = Path(__file__).resolve().parents[2]
PAGE, DATA = ROOT / "docs" / "combinations.md", ROOT / "core" / "engine" / "combinations.json"
Tokens = tuple[int, ...]
#: Outcome by pair of names: same, shaped, or what went wrong.
Matrix = dict[tuple[str, str], str]
SAME, SHAPED = "same", "shaped"


class Engine:
    """An engine with the flags of some features; requests go the way of ``/v1/chat/completions``."""

    def __init__(self, features: Sequence[Feature] = (), *, longer: bool = False) -> None:
        """``longer``: room for longer prompts."""
        flags = dict(PLAIN)
        for feature in FEATURES:
            if feature.front or feature in features:
                flags |= feature.flags
        if longer and "num_gpu_blocks_override" in flags:
            flags["num_gpu_blocks_override"] = MORE_PAGES
        self.llm = LLM("demo", use_tqdm_on_load=False, **flags)
        self._service = self.llm._service
        self._parsers = make_parsers(self.llm.config, PluginHost(), self._service.tokenizer)

    def use(self, features: Iterable[Feature]) -> None:
        """Split answers as a server with these features' parsers does."""
        names = {feature.name for feature in features}
        parsers = self._parsers
        self._service.parsers = Parsers(
            self._service.tokenizer, parsers.reasoning if "reasoning" in names else None, parsers.tools if "tools" in names else None,
            auto_tools=True,
        )  # fmt: skip

    def ask(self, bodies: list[dict[str, object]]) -> tuple[list[list[Answer]], int]:
        """The choices of every request, all at a time; and how many prompt tokens of the first came from the cache."""

        async def every() -> list[tuple[list[Answer], int]]:
            return list(await asyncio.gather(*map(self._one, bodies)))

        found = self.llm.background.wait(every())
        return [answers for answers, _ in found], found[0][1]

    async def _one(self, fields: dict[str, object]) -> tuple[list[Answer], int]:
        service = self._service
        asked = msgspec.convert(fields, ChatBody)
        answer = await prepare(service, asked, "demo", time.monotonic(), service.take_turn())
        collected = [Collected() for _ in answer.generation.choices]
        async for index, delta in answer.generation.events():
            collected[index].add(delta)
        return [_answer(each) for each in collected], _cached(answer.generation)


def _answer(collected: Collected) -> Answer:
    calls = tuple((call.name or "", call.arguments) for call in collected.tool_calls)
    return Answer(
        tuple(collected.token_ids), collected.text, collected.reasoning, calls, len(collected.logprobs), collected.finish_reason or ""
    )


def _cached(generation: Generation) -> int:
    return generation.choices[0].cached_tokens


def outcome(engine: Engine, pair: tuple[Feature, ...], plain: Tokens) -> str:
    """What the features together do, beside ``plain``: the tokens with those of them alone that may change tokens."""
    names = frozenset(feature.name for feature in pair)
    engine.use(pair)
    before = engine.llm.stats().preemptions
    if "prefix cache hit" in names:
        engine.ask([body(pair)])
    given, cached = engine.ask([body(pair, number) for number in range(CROWD if "preemption" in names else 1)])
    if "prefix cache hit" in names and not cached:
        return "nothing came from the cache"
    if "preemption" in names and engine.llm.stats().preemptions == before:
        return "nobody was preempted"
    for answers in given:
        wrong = problem(names, answers)
        if wrong is not None:
            return wrong
    found = given[0][0].tokens
    if names == {"guided", "reasoning"} or all(feature.shapes for feature in pair):
        # The constraint begins after the thinking where thinking is told apart: then both change the tokens.
        return SHAPED
    cut = "stop strings" in names and found == plain[: len(found)]
    return SAME if found == plain or cut else "other tokens than the plain path"


def run() -> Matrix:
    """Every feature alone, and every two of them."""
    pairs = [*((feature,) for feature in FEATURES), *itertools.combinations(FEATURES, 2)]
    by_engine: dict[tuple[frozenset[str], bool], list[tuple[Feature, ...]]] = {}
    for pair in pairs:
        needed = frozenset(feature.name for feature in pair if feature.flags and not feature.front)
        longer = "preemption" in needed and any(feature.name == "tools" for feature in pair)
        by_engine.setdefault((needed, longer), []).append(pair)
    plain: dict[tuple[str, ...], Tokens] = {}
    matrix: Matrix = {}
    for (needed, longer), tried in sorted(by_engine.items(), key=lambda entry: len(entry[0][0])):
        engine = Engine([feature for feature in FEATURES if feature.name in needed], longer=longer)
        try:
            for pair in tried:
                shapes = tuple(feature for feature in pair if feature.shapes)
                key = tuple(feature.name for feature in shapes)
                if key not in plain:
                    engine.use(shapes)
                    plain[key] = engine.ask([body(shapes)])[0][0][0].tokens
                matrix[pair[0].name, pair[-1].name] = outcome(engine, pair, plain[key])
        finally:
            engine.llm.close()
    return matrix


def page(matrix: Matrix) -> str:
    """docs/combinations.md."""
    names = [feature.name for feature in FEATURES]
    rows = [f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for row, name in enumerate(names):
        cells = [_cell(matrix.get((other, name) if column < row else (name, other), "")) for column, other in enumerate(names)]
        rows.append(f"| **{name}** | {' | '.join(cells)} |")
    return f"{INTRODUCTION}\n" + "\n".join(rows) + "\n"


def _cell(result: str) -> str:
    return {SAME: "=", SHAPED: "shaped"}.get(result, f"**{result}**")


def main() -> int:
    """Command line."""
    matrix = run()
    stored = {"features": [feature.name for feature in FEATURES], "pairs": [[*pair, result] for pair, result in matrix.items()]}
    texts = {PAGE: page(matrix), DATA: json.dumps(stored, indent=1) + "\n"}
    if "--check" in sys.argv:
        return int(any(path.read_text(encoding="utf-8") != text for path, text in texts.items()))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return int(any(result not in (SAME, SHAPED) for result in matrix.values()))


INTRODUCTION = """# Features together

Every two features of a request, tried together on the bundled model at temperature 0; on the diagonal a feature alone. *=*: the tokens are
those of the plain path (one request, whole prefill, no cache), as far as a stop string lets them come. *shaped*: both features may change
the tokens, and both hold. `python -m tools.combinations.run` runs them and writes this page; `engine plan` shows the same.
"""


if __name__ == "__main__":
    sys.exit(main())
