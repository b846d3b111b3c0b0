"""When a sequence ends, and what its last output says."""

from __future__ import annotations

import pytest

from engine.errors import RequestError
from engine.messages import Output
from engine.plugin.request import FinishReason, PoolingParams
from engine.plugin.step import SequenceResult, StepResult
from tests.core.scheduler.bench import Bench, request


def feed(bench: Bench, *token_ids: int) -> Output:
    """One step whose only sequence samples these tokens."""
    step = bench.scheduler.schedule()
    assert step is not None
    results = [SequenceResult(seq=work.seq, token_ids=list(token_ids)) for work in step.work]
    (output,) = bench.scheduler.commit(step, StepResult(index=step.index, results=results))
    bench.scheduler.check()
    return output


def ended(output: Output) -> tuple[list[int], FinishReason | None, int | None]:
    return output.token_ids, output.finish_reason, output.stop_reason


def test_eos_ends_and_counts() -> None:
    bench = Bench()
    bench.add(request("a", [1]))
    assert ended(feed(bench, 5)) == ([5], None, None)
    assert ended(feed(bench, 0)) == ([0], FinishReason.STOP, None)
    assert not bench.scheduler.has_work()


def test_eos_is_a_token_where_it_is_ignored() -> None:
    bench = Bench()
    bench.add(request("a", [1], ignore_eos=True, max_tokens=2))
    assert ended(feed(bench, 0)) == ([0], None, None)
    assert ended(feed(bench, 0)) == ([0], FinishReason.LENGTH, None)


def test_a_stop_token_is_named() -> None:
    bench = Bench()
    bench.add(request("a", [1], stop_token_ids=(8, 9), ignore_eos=True))
    assert ended(feed(bench, 9)) == ([9], FinishReason.STOP, 9)


def test_tokens_after_the_end_of_several_are_dropped() -> None:
    bench = Bench()
    bench.add(request("a", [1], stop_token_ids=(9,)))
    assert ended(feed(bench, 4, 9, 5, 0)) == ([4, 9], FinishReason.STOP, 9)
    bench.add(request("b", [1], max_tokens=3))
    assert ended(feed(bench, 4, 5, 6, 0)) == ([4, 5, 6], FinishReason.LENGTH, None)


def test_no_stop_before_min_tokens() -> None:
    bench = Bench()
    bench.add(request("a", [1], min_tokens=2, stop_token_ids=(9,)))
    assert ended(feed(bench, 0)) == ([0], None, None)
    assert ended(feed(bench, 9)) == ([9], None, None)
    assert ended(feed(bench, 9)) == ([9], FinishReason.STOP, 9)


def test_the_context_ends_it() -> None:
    bench = Bench(max_model_len=4)
    bench.add(request("a", [1, 1], max_tokens=None))
    assert ended(feed(bench, 5)) == ([5], None, None)
    assert ended(feed(bench, 5)) == ([5], FinishReason.LENGTH, None)


def test_zero_tokens_are_only_the_prompt() -> None:
    bench = Bench(max_model_len=3)
    bench.add(request("a", [1, 2, 3], max_tokens=0, prompt_logprobs=0))
    bench.run()
    (output,) = bench.outputs["a"]
    assert ended(output) == ([], FinishReason.LENGTH, None)
    assert [entry.token_id for entry in output.prompt_logprobs or ()] == [2, 3]


def test_delivered_tokens_count_as_output() -> None:
    bench = Bench()
    bench.add(request("a", [1, 2, 3, 4], delivered=2, max_tokens=3))
    step = bench.scheduler.schedule()
    assert step is not None
    assert (step.new[0].token_ids, step.new[0].num_prompt) == ([1, 2, 3, 4], 2)
    answer = SequenceResult(seq=0, token_ids=[5])
    (output,) = bench.scheduler.commit(step, StepResult(index=step.index, results=[answer]))
    assert ended(output) == ([5], FinishReason.LENGTH, None)


def test_logprobs_end_with_the_tokens() -> None:
    bench = Bench(drafts=4)
    bench.add(request("a", [1, 2, 3], logprobs=0, max_tokens=6, ignore_eos=True))
    bench.run()
    bench.verify()
    for output in bench.outputs["a"]:
        assert [entry.token_id for entry in output.logprobs or ()] == output.token_ids


def test_a_pooling_request_ends_with_its_prompt() -> None:
    bench = Bench(budget=8)
    bench.add(request("a", list(range(1, 20)), pooling=PoolingParams()))
    bench.run()
    (output,) = bench.outputs["a"]
    assert output.finish_reason is FinishReason.STOP
    assert output.pooled and not output.token_ids


def test_an_error_ends_one_sequence_alone() -> None:
    bench = Bench()
    bench.add(request("bad", [1, 2]), request("good", [3, 4]))
    bench.simulator.fail.add(0)
    bench.run()
    (output,) = bench.outputs["bad"]
    assert (output.finish_reason, output.error) == (FinishReason.ERROR, "logits are not finite")
    del bench.requests["bad"]
    bench.verify()


def test_a_worker_that_samples_nothing_is_an_error_not_a_loop() -> None:
    bench = Bench()
    bench.add(request("a", [1]))
    output = feed(bench)
    assert output.finish_reason is FinishReason.ERROR and "no token" in (output.error or "")


def test_the_first_output_alone_tells_times_and_cached_tokens() -> None:
    now = [100.0]
    bench = Bench(clock=lambda: now[0])
    bench.add(request("a", [1, 2, 3, 4, 5], ignore_eos=True, max_tokens=2))
    now[0] = 103.0
    bench.run()
    first, second = bench.outputs["a"]
    assert (first.queued, first.started) == (100.0, 103.0)
    assert (second.queued, second.started, second.cached_tokens) == (0.0, 0.0, 0)


def refused(bench: Bench, *args: object, **fields: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        bench.add(request("a", *args, **fields))  # type: ignore[arg-type]
    assert not bench.scheduler.has_work()
    return caught.value


def test_what_can_never_run_is_refused() -> None:
    bench = Bench(max_model_len=50, pages=10, block_size=4)
    error = refused(bench, [1] * 51)
    assert "This model's maximum context length is 50 tokens" in str(error)
    assert (error.param, error.code, error.http_status) == ("prompt", "context_length_exceeded", 400)
    assert refused(bench, [1] * 50).code == "context_length_exceeded"
    assert refused(bench, [1] * 45).param == "prompt"
    error = refused(bench, [1] * 30, max_tokens=15)
    assert (error.param, "40 tokens" in str(error)) == ("max_tokens", True)
    assert refused(bench, []).param == "prompt"
    assert refused(bench, [1], priority=1).param == "priority"


@pytest.mark.parametrize("lookahead", [0, 9])
def test_what_just_fits_runs(lookahead: int) -> None:
    bench = Bench(max_model_len=50, pages=10, block_size=4, lookahead_slots=lookahead)
    bench.add(request("a", [1] * 30, max_tokens=11, ignore_eos=True), request("b", [2] * 40, max_tokens=1))
    bench.run()
    bench.verify()


def test_an_id_in_use_is_refused() -> None:
    bench = Bench()
    bench.add(request("a", [1]))
    with pytest.raises(RequestError):
        bench.scheduler.add(request("a", [1]))
    bench.run()
    bench.verify()


def test_results_must_answer_the_step_in_flight() -> None:
    bench = Bench()
    bench.add(request("a", [1]), request("b", [2]))
    step = bench.scheduler.schedule()
    assert step is not None
    following = bench.scheduler.schedule()
    assert following is not None
    with pytest.raises(RuntimeError, match="not committed"):
        bench.scheduler.schedule()
    with pytest.raises(RuntimeError, match="does not answer"):
        bench.scheduler.commit(following, StepResult(index=following.index, results=[]))
    with pytest.raises(RuntimeError, match="does not answer"):
        bench.scheduler.commit(step, StepResult(index=step.index, results=[]))
    answers = [SequenceResult(seq=seq, token_ids=[1]) for seq in (1, 0)]
    with pytest.raises(RuntimeError, match="in place of"):
        bench.scheduler.commit(step, StepResult(index=step.index, results=answers))
