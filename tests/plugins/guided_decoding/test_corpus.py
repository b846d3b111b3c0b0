"""The demo model, sampled at temperature 1 under schemas of all sorts: every answer that finishes is valid."""

from __future__ import annotations

import asyncio
import json

import pytest
from jsonschema import Draft202012Validator

from engine.errors import RequestError
from engine.llm import LLM
from engine.plugin import GuideSpec, SamplingParams
from engine.server.generation import GenerationFailed
from tests.plugins.guided_decoding.corpus import Schema, corpus

BACKENDS = ("xgrammar", "guidance", "outlines", "lm-format-enforcer")
pytest.importorskip("llguidance")
pytest.importorskip("outlines_core")
pytest.importorskip("lmformatenforcer")


@pytest.fixture(scope="module")
def llm():
    with LLM("demo", max_model_len=1024, max_num_seqs=32, use_tqdm_on_load=False) as model:
        yield model


def answers(llm: LLM, schemas: list[Schema], backend: str, n: int) -> list[list[tuple[str, str]] | RequestError]:
    """Per schema the texts and finish reasons, or the refusal."""

    failures: list[str] = []

    async def one(gate: asyncio.Semaphore, index: int, schema: Schema) -> list[tuple[str, str]] | RequestError:
        guide = GuideSpec("json", schema, f"{backend}:no-fallback,disable-any-whitespace")
        params = SamplingParams(guide=guide, temperature=1.0, max_tokens=400, n=n, seed=index)
        async with gate:
            try:
                generation = await llm._generation(await llm._service.encoder.encode(f"Record {index}:"), params, "prompt", 0)
            except RequestError as refused:
                return refused
            texts = [""] * n
            ends = [""] * n
            try:
                async for choice, delta in generation.events():
                    texts[choice] += delta.text
                    ends[choice] = delta.finish_reason or ends[choice]
            except GenerationFailed as error:
                failures.append(f"{backend}: {schema}: {error}")
            return list(zip(texts, ends, strict=True))

    async def every() -> list[list[tuple[str, str]] | RequestError]:
        gate = asyncio.Semaphore(16)
        return await asyncio.gather(*(one(gate, index, schema) for index, schema in enumerate(schemas)))

    got = llm.background.wait(every())
    assert not failures, failures
    return got


def check(llm: LLM, schemas: list[Schema], backend: str, n: int) -> tuple[int, int, int]:
    """(schemas accepted, answers finished, answers in all); fails on the first invalid one."""
    accepted = finished = total = 0
    for schema, got in zip(schemas, answers(llm, schemas, backend, n), strict=True):
        Draft202012Validator.check_schema(schema)
        if isinstance(got, RequestError):
            assert "does not enforce" in str(got) or "only the backends" in str(got), (schema, got)
            continue
        accepted += 1
        for text, reason in got:
            total += 1
            if reason != "stop":
                continue
            finished += 1
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            wrong = next(validator.iter_errors(json.loads(text)), None)
            assert wrong is None, (backend, schema, text, wrong.message)
    return accepted, finished, total


@pytest.mark.parametrize("backend", BACKENDS)
def test_finished_answers_are_valid(llm, backend):
    schemas = corpus()[:30] + corpus()[30::8]
    accepted, finished, total = check(llm, schemas, backend, n=1)
    least = {"xgrammar": 0.8, "guidance": 0.9, "outlines": 0.3, "lm-format-enforcer": 0.1}[backend]
    assert accepted >= least * len(schemas)
    assert finished >= 0.8 * total


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_whole_corpus(llm, backend, record_property):
    schemas = corpus()
    assert len(schemas) >= 300
    accepted, finished, total = check(llm, schemas, backend, n=3)
    record_property("accepted", accepted)
    print(f"\n{backend}: {accepted} of {len(schemas)} schemas accepted, {finished} of {total} answers finished, all valid")
    # The others were cut off: a number without bounds may have as many digits as a small model likes.
    assert finished >= 0.7 * total


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_characters_of_several_tokens(llm: LLM, backend: str) -> None:
    """A token may end within a character, where what is forced is no text."""
    guide = GuideSpec("regex", "😀😀", f"{backend}:no-fallback")
    params = [SamplingParams(guide=guide, temperature=3.0, max_tokens=20, n=32, seed=seed) for seed in range(4)]
    for answer in llm.generate(["Smile"] * 4, params):
        assert {(output.text, output.finish_reason) for output in answer.outputs} == {("😀😀", "stop")}
