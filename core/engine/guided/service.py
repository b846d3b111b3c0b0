"""Decides for each constraint who enforces it, or why nobody does; one compilation for equal ones at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from engine.args.guided import split_backend
from engine.config import EngineConfig
from engine.errors import EngineError, RequestError
from engine.guided.compiling import Compiling, TooBusy
from engine.guided.messages import Judgement, Verdict
from engine.guided.store import key_of
from engine.plugin.faults import Faults
from engine.plugin.request import GuideSpec

#: Who is asked for what a backend lacks, in this order.
FALLBACKS = ("xgrammar", "guidance", "outlines", "lm-format-enforcer")
#: Decisions that are remembered.
REMEMBERED = 4096
#: A constraint that takes longer (seconds) is compiled before its request is sent on, so that no step waits for it.
QUICK = 0.02
#: One that takes less is not worth a question: the worker compiles it when its request comes.
TINY = 0.003
#: Of the slower ones it is not asked again about so many that were used last: it keeps what fits into its memory.
HELD = 4
#: Seconds between questions whether the worker has compiled a constraint, and in all.
POLL, PATIENCE = 0.003, 30.0
#: How a server rests before it loads what nobody has asked for yet: seconds between looks, and looks.
GLANCE, IDLE = 0.1, 5


class Caller(Protocol):
    """The engine's client. ``restarts``: how often the engine was started again, each time without the backends."""

    @property
    def restarts(self) -> int: ...

    async def call(self, method: str, **arguments: Any) -> Any: ...


class Decision(msgspec.Struct, frozen=True):
    """The outcome for one constraint: the spec with its backend (and ``breaks``), and the seconds that it compiles; or why it is refused.
    ``broken``: the backend that failed on it. ``passing``: not to be remembered."""

    spec: GuideSpec | None = None
    seconds: float = 0.0
    refusal: str = ""
    broken: str = ""
    passing: bool = False


class GuideService:
    """One per server."""

    def __init__(self, config: EngineConfig, client: Caller, faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self._guided = config.guided
        self._client = client
        self._compiling = Compiling(config)
        self._decisions: OrderedDict[bytes, Decision] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[Decision]] = {}
        #: Backends that the worker has loaded, as of so many restarts of the engine.
        self._used: set[str] = set()
        self._held: OrderedDict[bytes, None] = OrderedDict()
        self._restarts = 0
        self._available = bool(config.guided.choices) and "tokenizer" in config.choices

    async def prepare(self, field: str, spec: GuideSpec) -> GuideSpec:
        """``spec`` with the backend that enforces it, compiled. Raises RequestError naming ``field``."""
        if not self._available:
            raise RequestError(f"{field} is not available: there is no guided-decoding backend.", param=field, code="not_available")
        wish = self._wish(spec)
        if (choice := self._guided.choices.get(wish.backend or "")) is not None:
            self._faults.check(choice)
        decision, fresh = await self._known(field, wish)
        if decision.spec is None:
            raise RequestError(f"{field} cannot be used: {decision.refusal}", param=field, code="constraint_refused")
        chosen = msgspec.structs.replace(decision.spec, start_after=spec.start_after, opens=spec.opens)
        await self._warm(chosen, decision.seconds, fresh)
        return chosen

    async def check(self, field: str, spec: GuideSpec) -> None:
        """Raise RequestError naming ``field`` where the backend that ``spec`` names does not enforce all of it."""
        wish = msgspec.structs.replace(self._wish(spec), options={**spec.options, "fallback": False})
        decision, _ = await self._known(field, wish)
        if decision.spec is None:
            raise RequestError(f"{field} cannot be enforced: {decision.refusal}", param=field, code="constraint_refused")

    async def _known(self, field: str, wish: GuideSpec) -> tuple[Decision, bool]:
        """The decision, and whether it is new."""
        try:
            key = key_of(wish)
        except OverflowError as error:
            cause = f"{field} cannot be used: a whole number in it has more than 64 bits."
            raise RequestError(cause, param=field, code="constraint_refused") from error
        decision = self._decisions.get(key)
        if decision is None:
            return await self._decide(key, wish, field), True
        self._decisions.move_to_end(key)
        return decision, False

    async def warm(self, idle: Callable[[], bool] | None = None) -> None:
        """Load the server's backend here and in the worker: at once where a flag names it, else when ``idle`` has been true for a while
        (without it not at all). A failure waits for the first constraint, which is told."""
        if not self._available:
            return
        if not self._guided.warm:
            if idle is None:
                return
            await _rest(idle)
        with contextlib.suppress(EngineError):
            await self.prepare("guided_decoding_backend", GuideSpec("regex", "a"))

    async def stop(self) -> None:
        """:meth:`close`, and wait until everything has ended."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._compiling.stop()

    def close(self) -> None:
        """End the compile process."""
        for task in self._running.values():
            task.cancel()
        self._compiling.close()

    def _wish(self, spec: GuideSpec) -> GuideSpec:
        """The constraint with the server's defaults filled in, and without what only this request says."""
        options = dict(spec.options)
        asked, listed = split_backend(spec.backend) if spec.backend else (self._guided.backend, frozenset[str]())
        if not self._guided.any_whitespace or "disable-any-whitespace" in listed:
            options["any_whitespace"] = False
        if not self._guided.fallback or "no-fallback" in listed:
            options["fallback"] = False
        return msgspec.structs.replace(spec, backend=asked, options=options, start_after=(), opens=())

    async def _decide(self, key: bytes, wish: GuideSpec, field: str) -> Decision:
        """The decision, made once for all who ask at the same time; it goes on when one of them goes away."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._judge(wish))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        try:
            decision = await asyncio.shield(task)
        except TooBusy as error:
            raise RequestError(f"{field}: {error}", param=field, code="too_many_constraints", http_status=429) from error
        if decision.broken:
            # Not remembered: the next request may find the backend in a better state.
            raise self._faults.record(self._guided.choices[decision.broken], decision.refusal)
        if not decision.passing:
            self._decisions[key] = decision
        while len(self._decisions) > REMEMBERED:
            self._decisions.popitem(last=False)
        return decision

    async def _judge(self, wish: GuideSpec) -> Decision:
        asked = wish.backend or ""
        if asked not in self._guided.choices:
            return Decision(refusal=f"there is no backend {asked[:60]!r}; installed: {', '.join(self._guided.choices)}.")
        options = {name: value for name, value in wish.options.items() if name != "fallback"}
        spec = msgspec.structs.replace(wish, options=options)
        first = await self._compiling.judge(spec)
        if first.verdict is not Verdict.UNSUPPORTED:
            return _decision(spec, first)
        others = [name for name in FALLBACKS if name in self._guided.choices and name != asked]
        if wish.options.get("fallback") is False:
            return Decision(refusal=await self._explain(spec, first, others))
        notes = [f"{asked} does not enforce {first.text}"]
        for name in others:
            other = msgspec.structs.replace(spec, backend=name)
            judgement = await self._compiling.judge(other)
            if judgement.verdict is Verdict.UNSUPPORTED:
                if asked != "auto" or name != "xgrammar":
                    notes.append(f"{name} does not enforce {judgement.text}")
            elif judgement.verdict is Verdict.MISSING:
                notes.append(f"{name} is not installed: {judgement.text}")
            else:
                return _decision(other, judgement)
        return Decision(refusal="; ".join(notes) + ".")

    async def _explain(self, spec: GuideSpec, first: Judgement, others: list[str]) -> str:
        """The refusal of a backend without fallback, with the backends that would do."""
        able = []
        for name in others:
            judgement = await self._compiling.judge(msgspec.structs.replace(spec, backend=name))
            if judgement.verdict is Verdict.READY:
                able.append(name)
        hint = f" Backends that do: {', '.join(able)}." if able else " No installed backend does."
        return f"{spec.backend} does not enforce {first.text}, and falling back is turned off.{hint}"

    async def _warm(self, spec: GuideSpec, seconds: float, fresh: bool) -> None:
        """Have the worker compile it: at the first use, and again where a step would have to wait for it."""
        if self._restarts != self._client.restarts:
            self._restarts = self._client.restarts
            self._used.clear()
            self._held.clear()
        backend, key = spec.backend or "", key_of(spec)
        quick = seconds < QUICK and backend in self._used
        if (quick and (not fresh or seconds < TINY)) or key in self._held:
            self._hold(key)
            return
        preparing = self._prepare(msgspec.to_builtins(msgspec.structs.replace(spec, start_after=(), opens=())))
        if not quick:
            await preparing
            self._used.add(backend)
            self._held[key] = None
            self._hold(key)
            return
        # An answer comes between two steps. Where it does not come in time, steps are longer than the compiling, and it is done when the
        # prompt has been computed.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(preparing, seconds)

    def _hold(self, key: bytes) -> None:
        """It is the last that was used, if it is one of those; the first one is not held any more where there are too many."""
        if key in self._held:
            self._held.move_to_end(key)
        if len(self._held) > HELD:
            self._held.popitem(last=False)

    async def _prepare(self, stated: Any) -> None:
        """Until the worker has compiled it."""
        until = asyncio.get_running_loop().time() + PATIENCE
        while not (await self._client.call("prepare_guide", spec=stated))[0]:
            if asyncio.get_running_loop().time() > until:
                raise EngineError(f"the worker did not compile the constraint within {PATIENCE:g} s.")
            await asyncio.sleep(POLL)


async def _rest(idle: Callable[[], bool]) -> None:
    """Wait until it has been true ``IDLE`` times, ``GLANCE`` seconds apart."""
    times = 0
    while times < IDLE:
        await asyncio.sleep(GLANCE)
        times = times + 1 if idle() else 0


def _decision(spec: GuideSpec, judgement: Judgement) -> Decision:
    if judgement.verdict is Verdict.BUSY:
        raise TooBusy(f"{judgement.text}.")
    if judgement.verdict is Verdict.READY:
        return Decision(msgspec.structs.replace(spec, breaks=judgement.breaks), judgement.seconds)
    if judgement.verdict is Verdict.BROKEN:
        return Decision(refusal=judgement.text, broken=spec.backend or "")
    if judgement.verdict is Verdict.WRONG:
        return Decision(refusal=f"{judgement.text} ({spec.backend}).")
    refusal = f"{judgement.text}{'' if judgement.text.endswith('.') else '.'}"
    return Decision(refusal=refusal, passing=judgement.passing)
