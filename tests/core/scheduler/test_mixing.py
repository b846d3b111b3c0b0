"""How many tokens a step with prompts and running sequences may have."""

from __future__ import annotations

from engine.config import SchedulerConfig
from engine.scheduler.mixing import Mixing


def mixing(tokens: int = 256, most: int = 2048) -> Mixing:
    return Mixing(SchedulerConfig(max_num_batched_tokens=most, max_num_seqs=64, mixed_tokens=tokens))


def test_without_a_number_nothing_is_limited() -> None:
    rule = mixing(0)
    rule.observe(2000, 20.0)
    assert rule.limit(8, 1, 600) is None


def test_without_running_sequences_nothing_is_limited() -> None:
    assert mixing().limit(0, 1, 600) is None


def test_crowds_are_taken_whole() -> None:
    rule = mixing()
    assert rule.limit(18, 15, 1920) is None  # short prompts, nearly as many as decode
    assert rule.limit(40, 15, 1920) == 256  # they would stop too many
    assert rule.limit(18, 3, 1536) == 256
    assert rule.limit(6, 3, 1536) == 256  # few and long
    assert rule.limit(6, 4, 2048) is None  # a whole step
    assert rule.limit(1, 1, 4096) == 256  # a single one is no crowd


def test_prompts_go_on_beside_more_sequences_than_the_limit_has_tokens() -> None:
    assert mixing().limit(250, 1, 600) == 314
    assert mixing(64).limit(200, 1, 600) == 232


def test_the_limit_follows_the_time_that_tokens_take() -> None:
    slow, fast, noisy = mixing(), mixing(), mixing()
    for _ in range(3):
        assert slow.limit(4, 1, 600) == fast.limit(4, 1, 600) == 256
        slow.observe(256, 256 * 0.002)
        fast.observe(256, 256 * 0.0003)
    assert slow.limit(4, 1, 600) == 64
    assert fast.limit(4, 1, 600) == 640
    for seconds in (0.16, 3.0, 0.17, 0.165, 0.6):
        noisy.observe(256, seconds)
    assert noisy.limit(4, 1, 600) == 256
    for _ in range(9):
        slow.observe(256, 1e-6)
        fast.observe(32, 9.0)  # too few tokens to tell
    assert slow.limit(4, 1, 6000) == 2048
    assert fast.limit(4, 1, 600) == 640
