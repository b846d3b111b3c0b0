"""Thousands of random steps: everybody gets exactly what he would have got alone, and no page is lost."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.core.scheduler.bench import Bench, request

VARIANTS: dict[str, dict[str, Any]] = {
    "roomy": {"pages": 200},
    "tiny pool": {"pages": 20, "max_model_len": 80},
    "tiny pool, swap": {"pages": 20, "max_model_len": 80, "host_pages": 30, "mode": "swap"},
    "tiny pool, little swap": {"pages": 20, "max_model_len": 80, "host_pages": 7, "mode": "swap"},
    "swap, no prefix cache": {
        "pages": 20, "max_model_len": 80, "host_pages": 40, "mode": "swap", "prefix_caching": False,
    },
    "drafts": {"pages": 200, "drafts": 4},
    "drafts, tiny pool": {"pages": 20, "max_model_len": 80, "drafts": 4},
    "drafts, tiny pool, swap": {"pages": 20, "max_model_len": 80, "drafts": 4, "host_pages": 25, "mode": "swap"},
    "seven tokens a step": {"pages": 40, "max_model_len": 80, "budget": 7, "seqs": 7},
    "fewer tokens than sequences": {"pages": 40, "max_model_len": 80, "budget": 3, "seqs": 8, "drafts": 2},
    "whole prompts": {"pages": 24, "max_model_len": 80, "budget": 80, "chunked_prefill": False},
    "whole prompts, swap": {
        "pages": 24, "max_model_len": 80, "budget": 80, "chunked_prefill": False, "drafts": 3,
        "host_pages": 30, "mode": "swap",
    },
    "partial prefills": {
        "pages": 60, "max_model_len": 80, "budget": 16, "max_num_partial_prefills": 3,
        "long_prefill_token_threshold": 12,
    },
    "partial prefills, swap": {
        "pages": 22, "max_model_len": 80, "budget": 16, "max_num_partial_prefills": 3, "max_long_partial_prefills": 2,
        "host_pages": 22, "mode": "swap",
    },
    "small mixed steps": {"pages": 22, "max_model_len": 80, "mixed_tokens": 9},
    "lookahead": {"pages": 22, "max_model_len": 80, "lookahead_slots": 5},
    "one sequence": {"pages": 20, "max_model_len": 80, "seqs": 1},
    "blocks of one": {"pages": 80, "max_model_len": 80, "block_size": 1, "drafts": 2},
    "blocks of sixteen": {"pages": 8, "max_model_len": 128, "block_size": 16, "host_pages": 5, "mode": "swap"},
}  # fmt: skip


class Traffic:
    """Random requests, many of which begin alike."""

    def __init__(self, chance: random.Random, max_model_len: int, priorities: bool) -> None:
        self.chance = chance
        self.longest = max_model_len
        self.priorities = priorities
        self.prefixes = [[chance.randrange(1, 50) for _ in range(40)] for _ in range(3)]
        self.count = 0

    def request(self) -> Any:
        chance = self.chance
        prompt = list(chance.choice(self.prefixes)[: chance.randrange(41)])
        prompt += [chance.randrange(1, 50) for _ in range(chance.randrange(1, 20))]
        prompt = prompt[: self.longest - 5]
        self.count += 1
        return request(
            f"r{self.count}",
            prompt,
            max_tokens=chance.choice([0, 1, 2, 5, 20, 60]),
            arrival=float(self.count),
            min_tokens=chance.choice([0, 0, 0, 3]),
            ignore_eos=chance.random() < 0.5,
            stop_token_ids=chance.choice([(), (), (7, 9)]),
            prompt_logprobs=chance.choice([None, None, None, 1]),
            priority=chance.choice([-1, 0, 5]) if self.priorities else 0,
            adapter=chance.choice([None, None, "a"]),
            cache_salt=chance.choice([None, None, "s"]),
        )


def check_prompt_logprobs(bench: Bench) -> None:
    for id, one in bench.requests.items():
        if one.params.prompt_logprobs is not None:
            got = [entry.logprob for output in bench.outputs[id] for entry in output.prompt_logprobs or ()]
            assert got == [-float(p) for p in range(1, len(one.prompt_token_ids))], id


@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
@pytest.mark.parametrize("policy_name", ["fcfs", "priority"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_everybody_gets_his_own_tokens(variant: str, policy_name: str, ahead: bool) -> None:
    chance = random.Random(f"{variant} {policy_name}")
    settings = VARIANTS[variant]
    bench = Bench(policy_name=policy_name, seed=chance.randrange(1000), ahead=ahead, **settings)
    traffic = Traffic(chance, bench.max_model_len, policy_name == "priority")
    for _ in range(250):
        if chance.random() < 0.35 and bench.scheduler.stats().waiting < 20:
            bench.add(*(traffic.request() for _ in range(chance.choice([1, 1, 2, 6]))))
        if chance.random() < 0.05:
            alive = list(bench.scheduler._roster.by_id)
            bench.abort(*chance.sample(alive, min(len(alive), 2)))
        step = bench.next()
        bench.scheduler.check()
        if step is None:
            assert not bench.scheduler.has_work()
            continue
        for _ in range(2):
            if chance.random() < 0.05:  # gone while the step runs
                alive = list(bench.scheduler._roster.by_id)
                bench.abort(*chance.sample(alive, min(len(alive), 2)))
                bench.scheduler.check()
            if bench.following is None:
                bench.look_ahead()
                bench.scheduler.check()
        bench.finish(step)
    bench.run()
    bench.verify()
    check_prompt_logprobs(bench)
    assert traffic.count > 60
    assert bool(bench.simulator.ahead) == ahead
    assert bench.scheduler.stats().preemptions > 0 or settings["pages"] > 24 or bench.seqs == 1


def test_the_workers_are_told_of_every_end() -> None:
    bench = Bench(pages=20, max_model_len=80)
    bench.add(*(request(f"r{i}", [i + 1] * 9, arrival=float(i)) for i in range(10)))
    bench.run()
    bench.add(request("last", [3]))
    bench.run()
    assert len(bench.simulator.known) == 1
