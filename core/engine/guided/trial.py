"""Compiles a constraint and walks through it at random, so that a grammar that is slow to use is found before it is used."""

from __future__ import annotations

import json
import random
import time

import numpy as np
from numpy.typing import NDArray

from engine.guided.messages import Job, Judgement, Verdict
from engine.plugin.contracts.generation import Guide, GuideCompiler, Matcher, UnsupportedConstraint
from engine.plugin.request import GuideSpec

#: Tokens of the walk, and walks.
STEPS, WALKS = 48, 2
#: Processor seconds after which a walk ends where none of its steps took longer than ``SLOW``.
BRISK, SLOW = 0.004, 0.001
#: Processor seconds that finding the allowed tokens of one position may take.
STEP_SECONDS = 0.1


def judge(
    job: Job, compiler: GuideCompiler, width: int, end: int, seconds: float, blanks: tuple[int, ...] = ()
) -> Judgement:
    """What becomes of a job; logits have ``width`` columns, ``end`` is the end token, ``blanks`` are the tokens of line breaks alone.
    The walks end before ``seconds`` of a processor have passed: on a busy machine they would else end before they have found anything."""
    lacks = compiler.unsupported(job.spec)
    if lacks is not None:
        return Judgement(job.id, Verdict.UNSUPPORTED, lacks)
    worked = time.thread_time()
    try:
        guide = compiler.compile(job.spec)
    except UnsupportedConstraint as error:
        return Judgement(job.id, Verdict.UNSUPPORTED, " ".join(str(error).split())[:300])
    except ValueError as error:
        return Judgement(job.id, Verdict.WRONG, " ".join(str(error).split())[:500])
    took = time.thread_time() - worked
    try:
        problem = walk(
            guide, width, end, worked + 0.6 * seconds, dead_ends=job.spec.kind != "structural_tag", brisk=_is_tame(job.spec)
        )
    except UnsupportedConstraint as error:
        problem = Verdict.UNSUPPORTED, " ".join(str(error).split())[:300]
    except ValueError as error:
        problem = Verdict.WRONG, " ".join(str(error).split())[:300]
    if problem is not None:
        return Judgement(job.id, *problem)
    return Judgement(job.id, Verdict.READY, seconds=took, nbytes=guide.nbytes(), breaks=takes_any(guide.start(), blanks))


def walk(
    guide: Guide, width: int, end: int, until: float, *, dead_ends: bool = True, brisk: bool = False
) -> tuple[Verdict, str] | None:
    """Why the guide cannot be used, or None. No allowed token at the very start means an empty language; ``dead_ends``: elsewhere it
    does not, because odd beginnings of characters may lead there. In a structural tag it means that a part of it is empty. ``until``: the
    thread's processor time at which it ends; ``brisk``: a few quick steps are enough."""
    chance = random.Random(0)
    mask = np.zeros(-(-width // 32), np.int32)
    enough, slowest = time.thread_time() + BRISK, 0.0
    for _ in range(WALKS):
        matcher = guide.start()
        for step in range(STEPS):
            began = time.thread_time()
            mask.fill(0)
            matcher.fill(mask)
            took = time.thread_time() - began
            slowest = max(slowest, took)
            if took > STEP_SECONDS:
                return Verdict.EXPENSIVE, f"finding the tokens allowed at one position takes {took:.2f} s"
            allowed = allowed_tokens(mask, width)
            if not len(allowed):
                if step and dead_ends:
                    return None
                return Verdict.WRONG, "no text satisfies a part of it" if step else "no text satisfies it"
            ways = allowed[allowed != end]
            now = time.thread_time()
            if now > until or (brisk and now > enough and slowest < SLOW):
                return None
            if not len(ways) or not matcher.advance([int(ways[chance.randrange(len(ways))])]):
                break
    return None


def _is_tame(spec: GuideSpec) -> bool:
    """Whether nothing in it repeats what repeats, so that it is as quick later as it is at first."""
    return spec.kind in ("json", "json_object", "choice") and '"pattern' not in json.dumps(spec.value)


def takes_any(matcher: Matcher, tokens: tuple[int, ...]) -> bool:
    """Whether a text of the grammar, which has not begun, begins with one of the tokens."""
    for token in tokens:
        if matcher.advance([token]):
            matcher.rollback(1)
            return True
    return False


def allowed_tokens(mask: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    """The ids whose bits are set."""
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:width])
