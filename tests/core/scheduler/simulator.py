"""A worker without tensors that notices every wrong page.

The "KV" of a token is a number that depends on all tokens before it, so a page holds the right content only for one
prefix. Each step
checks, through the block table it was given, that every earlier position of every sequence holds exactly what it must.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from engine.plugin.request import Request, SamplingParams
from engine.plugin.step import NewSequence, SequenceResult, Step, StepResult, TokenLogprobs, Work

VOCAB = 50
EOS = 0


def advance(state: int, token: int) -> int:
    return hash((state, token)) & 0xFFFFFFFFFFFF


def root(adapter: str | None) -> int:
    return 17 if adapter is None else sum(map(ord, adapter)) + 1000


def sample(state: int) -> int:
    return (state >> 7) % VOCAB


def states_of(adapter: str | None, tokens: Iterable[int]) -> list[int]:
    state, states = root(adapter), []
    for token in tokens:
        state = advance(state, token)
        states.append(state)
    return states


def solo(request: Request, max_model_len: int) -> list[int]:
    """The output of ``request`` were it alone in the world."""
    params: SamplingParams = request.params
    output: list[int] = []
    state = states_of(request.adapter, request.prompt_token_ids)[-1]
    limit = min(max_model_len - len(request.prompt_token_ids), params.max_tokens or 0)
    while len(output) < limit:
        token = sample(state)
        output.append(token)
        state = advance(state, token)
        if len(output) > params.min_tokens:
            if token in request.eos_token_ids and not params.ignore_eos:
                break
            if token in params.stop_token_ids:
                break
    return output


class Simulator:
    """Obeys steps as the contract of :class:`Step` orders them. ``drafts``: the most tokens it proposes; about half are
    right.
    """

    def __init__(self, block_size: int, pages: int, host_pages: int, *, drafts: int = 0, seed: int = 0) -> None:
        self.block_size = block_size
        self.device: list[list[int | None]] = [[None] * block_size for _ in range(pages)]
        self.host: list[list[int | None]] = [[None] * block_size for _ in range(host_pages)]
        self.known: dict[int, NewSequence] = {}
        self.tokens: dict[int, list[int]] = {}
        self.states: dict[int, list[int]] = {}
        self.blocks: dict[int, list[int]] = {}
        self.drafts = drafts
        self.random = random.Random(seed)
        self.sampled: dict[int, int] = {}
        self.computed = 0
        self.ahead = 0
        self.fail: set[int] = set()

    def run(self, step: Step) -> StepResult:
        for seq in step.ended:
            for store in (self.known, self.tokens, self.states, self.blocks):
                del store[seq]
        for seq in step.preempted:
            assert self.blocks[seq], "a sequence without a table cannot lose it"
            self.blocks[seq] = []
        for source, target in step.swap_out:
            self.host[target] = list(self.device[source])
        for source, target in step.swap_in:
            self.device[target] = list(self.host[source])
        for new in step.new:
            assert new.seq not in self.known
            self.known[new.seq] = new
            self.tokens[new.seq] = list(new.token_ids)
            self.states[new.seq] = states_of(new.adapter, new.token_ids)
            self.blocks[new.seq] = []
        self._read(step.work)
        self._write(step.work)
        return StepResult(index=step.index, results=[self._result(work) for work in step.work], seconds=0.001)

    def _read(self, works: list[Work]) -> None:
        written: set[int] = set()
        read: set[int] = set()
        assert len({work.seq for work in works}) == len(works)
        for work in works:
            tokens, states = self.tokens[work.seq], self.states[work.seq]
            self.ahead += work.ahead
            for token in [*work.append, *([self.sampled[work.seq]] if work.ahead else [])]:
                tokens.append(token)
                states.append(advance(states[-1], token))
            blocks = self.blocks[work.seq]
            blocks += work.blocks
            assert work.count > len(work.draft)
            end = work.start + work.count
            assert end - len(work.draft) <= len(tokens)
            assert not work.draft or end - len(work.draft) == len(tokens)
            assert work.sample == (end - len(work.draft) == len(tokens))
            assert end <= len(blocks) * self.block_size, "no pages for these positions"
            assert len(set(blocks)) == len(blocks)
            for position in range(work.start):
                assert self._slot(blocks, position) == states[position], f"wrong KV at {position} of {work.seq}"
            read |= set(blocks[: -(-work.start // self.block_size)])
            mine = set(blocks[work.start // self.block_size : -(-end // self.block_size)])
            assert not mine & written, "two sequences write one page"
            written |= mine
        for work in works:
            mine = set(self.blocks[work.seq][work.start // self.block_size :])
            others = {
                page for other in works if other.seq != work.seq for page in self.blocks[other.seq][:
                -(-other.start // self.block_size)]
            }
            assert not mine & others, "a page that one reads is another's to write"

    def _write(self, works: list[Work]) -> None:
        for work in works:
            states = list(self.states[work.seq])
            for token in work.draft:
                states.append(advance(states[-1], token))
            for position in range(work.start, work.start + work.count):
                page = self.blocks[work.seq][position // self.block_size]
                self.device[page][position % self.block_size] = states[position]
            self.computed += work.count

    def _result(self, work: Work) -> SequenceResult:
        new, states = self.known[work.seq], self.states[work.seq]
        prompt_logprobs = None
        if new.params.prompt_logprobs is not None:
            last = min(work.start + work.count, new.num_prompt)
            prompt_logprobs = [
                TokenLogprobs(new.token_ids[p], -float(p), 1, [], []) for p in range(max(1, work.start), last)
            ]
        if work.seq in self.fail:
            return SequenceResult(seq=work.seq, error="logits are not finite")
        if not work.sample:
            return SequenceResult(seq=work.seq, prompt_logprobs=prompt_logprobs)
        if new.pooling is not None:
            return SequenceResult(seq=work.seq, pooled=str(states[-1]).encode())
        state, accepted = states[-1], []
        for draft in [*work.draft, None]:
            token = sample(state)
            accepted.append(token)
            state = advance(state, token)
            if token != draft:
                break
        self.sampled[work.seq] = accepted[-1]
        return SequenceResult(
            seq=work.seq,
            token_ids=accepted,
            logprobs=None if new.params.logprobs is None else [TokenLogprobs(t, -1.0, 1, [], []) for t in accepted],
            prompt_logprobs=prompt_logprobs,
            proposed=self._propose(state),
        )

    def _propose(self, state: int) -> list[int]:
        proposed = []
        for _ in range(self.random.randint(0, self.drafts) if self.drafts else 0):
            token = sample(state) if self.random.random() < 0.7 else self.random.randrange(VOCAB)
            proposed.append(token)
            state = advance(state, token)
        return proposed

    def _slot(self, blocks: list[int], position: int) -> int | None:
        return self.device[blocks[position // self.block_size]][position % self.block_size]
