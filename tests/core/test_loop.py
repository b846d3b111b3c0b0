"""The loop with and without overlap: the same outputs to the bit, and nobody waits a step longer than needed."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.forecast import Forecast
from engine.loop import EngineLoop
from engine.messages import Abort, Add, Output, Outputs, Stats, Stop, ToEngine
from engine.plugin.request import GuideSpec, Request, SamplingParams, ThinkingLimit
from engine.plugin.step import SequenceResult, Step, StepResult, Work
from engine.process import agree_on_pages, create_loop, start_executor

PROMPTS = [[1, *range(20 + i, 60 + 3 * i)] for i in range(24)]
KINDS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.9, "top_p": 0.9},
    {"temperature": 0.0, "repetition_penalty": 1.4, "presence_penalty": 0.6, "frequency_penalty": 0.3},
    {"temperature": 0.7, "logprobs": 3, "prompt_logprobs": 1},
    {"temperature": 0.8, "min_tokens": 9, "stop_token_ids": tuple(range(100, 300))},
    {"temperature": 0.0, "guide": GuideSpec("regex", "([a-c]{2}-){4}end", "xgrammar")},
    {"temperature": 0.0, "thinking": ThinkingLimit(budget=5, start=(40,), end=(41, 42), forced=(41, 42), open=True)},
    {"temperature": 1.0, "bad_words_ids": ((50, 51), (60,)), "logit_bias": {70: 4.0, 71: -3.0}},
]  # fmt: skip


class Front:
    """Sends requests, some after some outputs, aborts two of them, and keeps what comes back."""

    def __init__(self, requests: list[Request]) -> None:
        self.later = requests[16:]
        self.messages: list[ToEngine] = [Add(request) for request in requests[:16]]
        self.outputs: dict[str, list[Output]] = {request.id: [] for request in requests}

    def receive(self, wait: bool) -> ToEngine | None:
        if not self.messages and wait:
            return Stop()
        return self.messages.pop(0) if self.messages else None

    def send(self, message: Any) -> None:
        for output in message.outputs:
            self.outputs[output.id].append(output)
        if self.later and sum(map(len, self.outputs.values())) > 40:
            self.messages += [Add(request) for request in self.later]
            self.messages.append(Abort(["r2", "r9"]))
            self.later = []

    def given(self) -> dict[str, Any]:
        """Everything but times, and how tokens were dealt out; of the aborted ones only that they began alike can be told."""
        return {id: joined(outputs) for id, outputs in self.outputs.items() if id not in ("r2", "r9")}


def joined(outputs: list[Output]) -> tuple[Any, ...]:
    """Tokens, their log-probabilities, the prompt's, the cached tokens and how it ended."""
    assert [output.finish_reason is None for output in outputs] == [True] * (len(outputs) - 1) + [False]
    parts = [[part for output in outputs for part in getattr(output, name) or ()] for name in ("token_ids", "logprobs", "prompt_logprobs")]
    last = outputs[-1]
    return (*parts, outputs[0].cached_tokens, last.finish_reason, last.stop_reason, last.error)


def requests() -> list[Request]:
    return [
        Request(
            id=f"r{i}", prompt_token_ids=prompt, arrival=float(i), eos_token_ids=(2,),
            params=SamplingParams(max_tokens=20 + 15 * (i % 4), seed=i, **KINDS[i % len(KINDS)]),
        )
        for i, prompt in enumerate(PROMPTS)
    ]  # fmt: skip


def serve(overlap: bool, directory: Path, **flags: Any) -> tuple[Front, Stats, int]:
    """The outputs, the last statistics and how many work items went on from a token in flight."""
    config = resolve(EngineArgs(model="demo", max_model_len=256, use_tqdm_on_load=False, **flags))
    config = msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, overlap=overlap))
    executor = start_executor(config, str(directory), lambda *_: None)
    try:
        pages = agree_on_pages(config, executor.budgets())
        executor.allocate(*pages)
        front, ahead, submit = Front(requests()), [0], executor.submit

        def counted(step: Step) -> Future[StepResult]:
            ahead[0] += sum(work.ahead for work in step.work)
            return submit(step)

        executor.submit = counted  # type: ignore[method-assign]
        loop = create_loop(config, executor, *pages, front)  # type: ignore[arg-type]
        loop.run()
        return front, loop._scheduler.stats(), ahead[0]
    finally:
        executor.shutdown()


@pytest.mark.parametrize(
    "flags",
    [{}, {"num_gpu_blocks_override": 24}, {"num_gpu_blocks_override": 24, "preemption_mode": "swap", "swap_space": 0.1}],
    ids=["room", "recompute", "swap"],
)
def test_overlap_changes_no_output(flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Forecast, "seconds_until_nearly_over", lambda *_: 0.0)
    in_turn, stats, none = serve(False, tmp_path / "1", max_num_seqs=12, **flags)
    overlapping, _, ahead = serve(True, tmp_path / "2", max_num_seqs=12, **flags)
    assert none == 0
    assert ahead > 10
    assert overlapping.given() == in_turn.given()
    assert stats.preemptions > 0 or not flags


class Lazy(Future[StepResult]):
    """Is over when somebody wants to know what came out."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def result(self, timeout: float | None = None) -> StepResult:
        return StepResult(index=self.index, results=[SequenceResult(seq=0, token_ids=[1])], seconds=0.0)


class Steps:
    """A scheduler whose steps are numbers, and an executor. A request comes while step 1 runs."""

    overlaps = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.waiting: list[str] = []
        self.inbox: list[ToEngine] = []
        self.left = 0
        self.number = 0
        self.known = True

    def add(self, request: Request) -> None:
        self.waiting.append(request.id)

    def schedule(self) -> Step | None:
        if not self.left:
            return None
        self.left -= 1
        self.events.append(f"schedule {self.number} {' '.join(self.waiting)}".strip())
        self.waiting.clear()
        step = Step(index=self.number, work=[Work(seq=0, start=self.number, count=1)])
        self.number += 1
        return step

    def foreseeable(self) -> bool:
        return self.known

    def submit(self, step: Step) -> Future[StepResult]:
        if step.index == 1:
            self.inbox.append(Add(Request(id="late", prompt_token_ids=[1], params=SamplingParams(), arrival=0.0)))
        return Lazy(step.index)

    def requests(self, step: Step) -> list[str]:
        return []

    def commit(self, step: Step, result: StepResult) -> list[Output]:
        self.events.append(f"commit {step.index}")
        return []

    def stats(self) -> Stats:
        return Stats()

    def has_work(self) -> bool:
        return self.left > 0

    def receive(self, wait: bool) -> ToEngine | None:
        if self.inbox:
            return self.inbox.pop(0)
        return Stop() if wait else None


@pytest.fixture
def steps() -> Steps:
    return Steps()


def run(steps: Steps, count: int) -> list[str]:
    steps.left = count
    sent: list[Outputs] = []
    EngineLoop(steps, steps, steps.receive, sent.append).run()  # type: ignore[arg-type]
    return steps.events


def test_a_step_is_scheduled_before_the_last_is_committed_once_its_length_is_known(steps: Steps) -> None:
    events = run(steps, 4)
    assert events == [
        "schedule 0", "commit 0", "schedule 1", "schedule 2 late", "commit 1", "schedule 3", "commit 2", "commit 3",
    ]  # fmt: skip


def test_a_step_that_nobody_can_foresee_is_waited_for(steps: Steps) -> None:
    steps.known = False
    events = run(steps, 3)
    assert [event.split()[0] for event in events] == ["schedule", "commit"] * 3


def test_an_executor_without_overlap_gets_one_step_at_a_time(steps: Steps) -> None:
    steps.overlaps = False
    assert [event.split()[0] for event in run(steps, 3)] == ["schedule", "commit"] * 3


def test_forecasts_are_by_size() -> None:
    def step(sequences: int, tokens: int) -> Step:
        return Step(index=0, work=[Work(seq=i, start=0, count=tokens) for i in range(sequences)])

    forecast = Forecast()
    assert forecast.seconds_until_nearly_over(step(3, 1)) is None
    forecast.observe(step(3, 1), 0.1)
    forecast.observe(step(1, 500), 2.0)
    assert forecast.seconds_until_nearly_over(step(3, 1)) == pytest.approx(0.093)
    assert forecast.seconds_until_nearly_over(step(1, 3)) is None
    assert forecast.seconds_until_nearly_over(step(1, 510)) == pytest.approx(1.898)
    assert forecast.seconds_until_nearly_over(step(2, 1)) is None


@pytest.mark.parametrize(("threads", "flag", "overlap"), [(4, False, False), (3, False, True), (3, True, False)])
def test_overlap_needs_a_processor_to_spare(threads: int, flag: bool, overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("engine_devices._host_limits._quotas", lambda _: [])
    config = resolve(EngineArgs(model="demo", device="cpu", disable_async_output_proc=flag))
    assert config.run.overlap == overlap
