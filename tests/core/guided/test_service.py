"""Constraints from fields to decisions: who enforces them, what is refused, how fast, and with how much memory."""

from __future__ import annotations

import asyncio
import sys
import time

import psutil
import pytest

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.errors import ConfigError, MissingDependency, RequestError
from engine.guided.fields import plain
from engine.guided.messages import Judgement, Verdict
from engine.guided.service import GuideService
from engine.plugin import GuideSpec
from tests.core.guided.hostile import HOSTILE, LONG
from tests.patience import SLACK


class Client:
    """A worker that has compiled everything already."""

    def __init__(self):
        self.asked = []
        self.restarts = 0

    async def call(self, method, **arguments):
        self.asked.append((method, arguments["spec"]["backend"]))
        return [True]


@pytest.fixture
async def service():
    made = GuideService(resolve(EngineArgs(model="demo", max_model_len=512)), Client())
    yield made
    await made.stop()


async def refusal(service, kind, value, backend=None):
    with pytest.raises(RequestError) as refused:
        await service.prepare("f", plain(GuideSpec(kind, value, backend)))
    return refused.value


async def verdict(service, kind, value, backend=None):
    """The refusal and its seconds; where other tests keep the machine too busy to tell, of another try."""
    for _ in range(4):
        began = time.monotonic()
        error = await refusal(service, kind, value, backend)
        if "too busy" not in str(error) or SLACK == 1.0:
            break
    return error, time.monotonic() - began


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_constraints_are_refused_in_time(service, name):
    kind, value, says = HOSTILE[name]
    if name == "unsatisfiable":
        pytest.importorskip("llguidance")  # the backend that finds it out; without it xgrammar refuses allOf itself
    await service.prepare("f", plain(GuideSpec("regex", "a")))
    error, seconds = await verdict(service, kind, value)
    assert says in str(error)
    assert seconds < 4.0 * SLACK  # 2 s, and as much again for a busy machine
    assert await service.prepare("f", plain(GuideSpec("regex", "b")))


@pytest.mark.parametrize("backend", ["outlines", "lm-format-enforcer"])
async def test_other_backends_have_the_same_budget(service, backend):
    pytest.importorskip("outlines_core")
    pytest.importorskip("lmformatenforcer")
    await service.prepare("f", plain(GuideSpec("regex", "a", backend)))
    error, seconds = await verdict(service, "regex", "((a{1,100}){1,100}){1,100}", f"{backend}:no-fallback")
    assert "longer than" in str(error) and seconds < 4.0 * SLACK


async def test_memory_is_bounded_and_given_back(service):
    pytest.importorskip("outlines_core")
    await service.prepare("f", plain(GuideSpec("regex", "a", "outlines")))
    before = psutil.Process(service._compiling.pid).memory_info().rss
    error, _ = await verdict(service, "json", {"type": "object", "properties": LONG}, "outlines:no-fallback")
    assert "memory" in str(error) or "longer than" in str(error)
    assert psutil.Process(service._compiling.pid).memory_info().rss < before + 30 * 2**20


async def test_a_slow_constraint_holds_up_no_other(service):
    await service.prepare("f", plain(GuideSpec("regex", "a")))
    slow = asyncio.create_task(refusal(service, "json", {"type": "object", "properties": LONG}))
    await asyncio.sleep(0.05)
    assert (await service.prepare("f", plain(GuideSpec("regex", "[ab]+")))).backend == "xgrammar"
    assert not slow.done()
    await slow


async def test_equal_constraints_are_compiled_once(service):
    spec = plain(GuideSpec("json", {"type": "object", "properties": {"a": {"type": "string"}}}))
    jobs = []
    judge = service._compiling.judge
    service._compiling.judge = lambda spec: jobs.append(spec) or judge(spec)
    got = await asyncio.gather(*(service.prepare("f", spec) for _ in range(8)))
    await service.prepare("f", spec)
    assert len(jobs) == 1 and len(set(map(str, got))) == 1


async def test_what_a_backend_lacks_goes_to_another(service):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False}
    assert (await service.prepare("f", plain(GuideSpec("json", schema)))).backend == "guidance"
    assert (await service.prepare("f", plain(GuideSpec("json", schema, "outlines")))).backend == "guidance"
    error = await refusal(service, "json", schema, "xgrammar:no-fallback")
    assert "xgrammar does not enforce patternProperties" in str(error) and "Backends that do: guidance." in str(error)
    assert "uniqueItems" in str(await refusal(service, "json", {"type": "array", "uniqueItems": True}))


async def test_an_unknown_backend_or_option(service):
    assert "no backend 'foo'" in str(await refusal(service, "regex", "a", "foo"))
    with pytest.raises(RequestError, match="the option 'x' is unknown"):
        plain(GuideSpec("regex", "a", "xgrammar:x"))


async def test_the_compile_process_is_started_again(service):
    await service.prepare("f", plain(GuideSpec("regex", "a")))
    psutil.Process(service._compiling.pid).kill()
    await asyncio.sleep(0.2)
    assert await service.prepare("f", plain(GuideSpec("regex", "c")))


def test_the_flag():
    def configured(text):
        return resolve(EngineArgs(model="demo", max_model_len=512, guided_decoding_backend=text)).guided

    pytest.importorskip("outlines_core")
    assert configured("xgrammar").fallback and configured("xgrammar").any_whitespace
    both = configured("outlines:no-fallback,disable-any-whitespace")
    assert (both.backend, both.fallback, both.any_whitespace) == ("outlines", False, False)
    with pytest.raises(ConfigError, match="known: no-fallback, disable-any-whitespace"):
        configured("xgrammar:fast")


def test_a_backend_without_its_library_ends_the_start(monkeypatch):
    import importlib.metadata as metadata

    real = metadata.distribution

    def without(name):
        if name == "llguidance":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "distribution", without)
    with pytest.raises(MissingDependency) as missing:
        resolve(EngineArgs(model="demo", max_model_len=512, guided_decoding_backend="guidance:no-fallback"))
    assert "pip install 'engine[guidance]'" in missing.value.line() and missing.value.status == 3
    assert resolve(EngineArgs(model="demo", max_model_len=512)).guided.backend == "xgrammar"


async def test_the_default_backend_is_loaded_when_the_server_rests(service, monkeypatch):
    monkeypatch.setattr("engine.guided.service.GLANCE", 0.01)
    idle = [True] * 3 + [False] + [True] * 4
    seen = []
    monkeypatch.setattr(service, "prepare", lambda *asked: _note(seen, asked))
    looks = iter(idle)
    await asyncio.wait_for(service.warm(lambda: next(looks, True)), 5)
    assert [field for field, _ in seen] == ["guided_decoding_backend"] and next(looks, None) is None
    await service.warm()
    assert len(seen) == 1, "nobody knows whether it rests"


async def _note(seen, asked):
    seen.append(asked)


async def test_a_first_constraint_after_loading_costs_little(service, monkeypatch):
    monkeypatch.setattr("engine.guided.service.GLANCE", 0.01)
    await service.warm(lambda: True)
    assert service._compiling.pid is not None and [method for method, _ in service._client.asked] == ["prepare_guide"]
    began = time.perf_counter()
    await service.prepare("f", plain(GuideSpec("json", {"type": "object", "properties": {"a": {"type": "integer"}}})))
    assert time.perf_counter() - began < 0.5, "a process that is started takes longer"


async def test_an_engine_that_was_started_again_is_asked_again(service):
    spec = plain(GuideSpec("choice", ["a", "b"]))
    for restarts, asked in ((0, 1), (0, 1), (1, 2), (1, 2)):
        service._client.restarts = restarts
        await service.prepare("f", spec)
        assert len(service._client.asked) == asked


def test_libraries_that_are_not_needed_are_absent_while_a_backend_is_made():
    from engine.guided.stand_ins import standing_in

    name = "engine_of_a_module_that_nobody_has"
    with standing_in((name,), stay=False):
        module = sys.modules[name]
        assert issubclass(module.Capital, object) and module.dtype.anything() is not None
    assert name not in sys.modules
    with pytest.raises(KeyError), standing_in((name,)):
        raise KeyError
    assert name not in sys.modules
    with standing_in((name, "json"), stay=True):
        pass
    assert sys.modules.pop(name) and sys.modules["json"].loads("1") == 1


@pytest.mark.parametrize("schema", ['{"const": 1e400}', '{"const": NaN}', {"minimum": float("-inf")}])
def test_numbers_that_json_has_not(schema):
    with pytest.raises(RequestError, match="a number in it is none"):
        plain(GuideSpec("json", schema))


async def test_numbers_of_more_than_64_bits(service):
    with pytest.raises(RequestError, match="64 bits"):
        await service.prepare("f", plain(GuideSpec("json", {"maximum": 10**30})))
    with pytest.raises(RequestError, match="64 bits"):
        await service.check("f", plain(GuideSpec("json", {"maximum": 10**30})))


async def test_all_of_a_schema_or_none(service):
    for kind in ("uniqueItems", "not"):
        with pytest.raises(RequestError, match=f"f cannot be enforced: xgrammar does not enforce {kind}"):
            await service.check("f", plain(GuideSpec("json", {"type": "array", kind: {"const": 1} if kind == "not" else True}, "xgrammar")))
    await service.check("f", plain(GuideSpec("json", {"type": "array", "items": {"type": "integer"}}, "xgrammar")))


async def test_a_busy_machine_is_the_servers_matter_and_is_not_remembered(service, monkeypatch):
    answers = [
        Judgement(0, Verdict.BUSY, "the machine is too busy"), Judgement(0, Verdict.EXPENSIVE, "it takes longer", passing=True),
        Judgement(0, Verdict.READY), Judgement(0, Verdict.BROKEN, "never asked"),
    ]  # fmt: skip

    async def judge(spec):
        return answers.pop(0)

    monkeypatch.setattr(service._compiling, "judge", judge)
    found = [await refusal(service, "regex", "busy+") for _ in range(2)]
    assert [error.http_status for error in found] == [429, 400] and "too busy" in str(found[0]) and "longer" in str(found[1])
    for _ in range(2):
        assert (await service.prepare("f", plain(GuideSpec("regex", "busy+")))).backend == "xgrammar"
    assert len(answers) == 1


class SlowClient(Client):
    """A worker whose steps are longer than most compiling."""

    async def call(self, method, **arguments):
        await super().call(method, **arguments)
        await asyncio.sleep(5)
        return [False]


@pytest.mark.parametrize("seconds, asked", [(0.001, 0), (0.01, 1)])
async def test_a_quick_constraint_waits_for_no_long_step(service, monkeypatch, seconds, asked):
    service._client = SlowClient()
    service._used.add("xgrammar")
    monkeypatch.setattr(service._compiling, "judge", lambda spec: _ready(spec, seconds))
    began = time.perf_counter()
    await service.prepare("f", plain(GuideSpec("regex", "a", "xgrammar")))
    assert time.perf_counter() - began < 2 and len(service._client.asked) == asked


async def test_a_slow_constraint_is_compiled_before_its_request_goes_on(service, monkeypatch):
    service._client = SlowClient()
    service._used.add("xgrammar")
    monkeypatch.setattr(service._compiling, "judge", lambda spec: _ready(spec, 0.5))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.prepare("f", plain(GuideSpec("regex", "a", "xgrammar"))), 1)


async def test_a_slow_constraint_is_asked_about_again_after_others_and_a_restart(service, monkeypatch):
    monkeypatch.setattr(service._compiling, "judge", lambda spec: _ready(spec, 0.5))

    async def asked(*texts):
        before = len(service._client.asked)
        for text in texts:
            await service.prepare("f", plain(GuideSpec("regex", text, "xgrammar")))
        return len(service._client.asked) - before

    assert await asked("a", "a", "a") == 1
    assert await asked("b", "c", "d", "a", "b") == 3 and await asked("e") == 1
    assert await asked("a", "b", "d", "e") == 0, "the last four"
    assert await asked("c", "c") == 1
    service._client.restarts += 1
    assert await asked("a", "a") == 1


async def _ready(spec, seconds):
    return Judgement(0, Verdict.READY, seconds=seconds)
