"""What the routes share: the configuration, the engine's client, the tokenizer and everything made from them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec

from engine.assemble.tokens import TokenTexts
from engine.config import EngineConfig
from engine.errors import EngineError, RequestError
from engine.guided.service import GuideService
from engine.messages import Output, Stats
from engine.metrics import Metrics
from engine.plugin.api import Choice
from engine.plugin.contracts.scheduling import SchedulingPolicy
from engine.plugin.contracts.text import Tokenizer, TokenizerPool
from engine.plugin.faults import Faults
from engine.plugin.request import Request
from engine.render.chat import ChatRenderer
from engine.render.params import Limits
from engine.render.prompt import PromptEncoder
from engine.render.requested import RequestTemplates
from engine.render.template import load_templates
from engine.server.admission import Admission
from engine.server.parsing import Parsers
from engine.server.plugin_faults import FaultsCollector
from engine.tracing import RequestTrace, Traces

log = logging.getLogger("engine.requests")


class Client(Protocol):
    """The engine as the server sees it; :class:`engine.client.EngineClient` is one."""

    @property
    def stats(self) -> Stats:
        """The latest state."""

    @property
    def restarts(self) -> int:
        """How often it was started again."""

    def watch(self, see: Callable[[Stats], None]) -> None:
        """Call ``see`` with the state after every step."""

    @property
    def dead(self) -> EngineError | None:
        """Why the engine no longer works, or None."""

    @property
    def restarting(self) -> EngineError | None:
        """Why it is being started again just now, or None; requests are taken and wait."""

    def generate(self, request: Request) -> AsyncIterator[Output]:
        """Outputs of a request; closing the iterator aborts it."""

    async def call(self, method: str, **arguments: Any) -> Any:
        """A named operation of the engine's workers; one answer per rank."""


class Service:
    """Made once per server."""

    def __init__(
        self,
        config: EngineConfig,
        client: Client,
        tokenizer: Tokenizer | None,
        *,
        policy: SchedulingPolicy | None = None,
        pool: TokenizerPool | None = None,
        metrics: Metrics | None = None,
        endpoints: frozenset[str] = frozenset({"completions", "chat"}),
        parsers: Parsers | None = None,
        traces: Traces | None = None,
        faults: Faults | None = None,
    ) -> None:
        """``policy`` None: priorities are refused. ``endpoints``: what the task serves. ``parsers`` None: answers are plain text.
        ``faults``: where failures of plugins are counted."""
        self.faults = faults or Faults()
        self.config = config
        self.client = client
        self.tokenizer = tokenizer
        self.policy = policy
        self.endpoints = endpoints
        self.traces = traces
        self.parsers = parsers or Parsers()
        self.limits = Limits.of(config)
        self.admission = Admission(config.server)
        self.metrics = metrics or Metrics(config, client)
        self.metrics.watch_queue(self.admission)
        self.metrics.registry.register(FaultsCollector(self.faults))
        self.texts = TokenTexts(tokenizer)
        self.encoder = PromptEncoder(tokenizer, self.limits, pool)
        server = config.server
        carried = tokenizer.chat_template() if tokenizer is not None else None
        variables = tokenizer.special_tokens() if tokenizer is not None else {}
        self.renderer = ChatRenderer(
            self.encoder,
            load_templates(server.chat_template, carried, variables),
            content_format=server.chat_template_content_format,
            requested=RequestTemplates(variables) if server.request_templates else None,
        )
        self.carried_template = carried
        self.eos_token_ids = _ending_tokens(config, tokenizer)
        self.guides = GuideService(config, client, self.faults)
        self.fingerprint = _fingerprint(config)
        self.started = int(time.time())
        self.load = 0
        self._instance = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._seed = secrets.randbits(63) if config.model.seed is None else config.model.seed

    @property
    def idle(self) -> bool:
        """Whether the engine could work, and nobody asks for anything."""
        client = self.client
        return not client.stats.running and not client.stats.waiting and client.restarting is None and client.dead is None

    def new_id(self) -> str:
        """An engine request id, unique in the server's life."""
        return f"{self._instance}-{next(self._numbers)}"

    def begin_trace(self, arrival: float) -> RequestTrace | None:
        """For a request that did not come by HTTP; None where nothing is traced."""
        return RequestTrace(self.new_id(), {}, began=arrival) if self.traces is not None else None

    def end_trace(self, trace: RequestTrace) -> None:
        """Hand it on."""
        if self.traces is not None:
            self.traces.send(trace, time.monotonic())

    def take_turn(self) -> int:
        """The place of a request that has just come among all of the server's life."""
        return next(self._turns)

    def seed(self, turn: int, sequence: int) -> int:
        """For a sequence of a request without a seed: --seed and the order of requests decide it, and nothing else does."""
        drawn = hashlib.blake2b(f"{self._seed} {turn} {sequence}".encode(), digest_size=8)
        return int.from_bytes(drawn.digest(), "little") >> 1

    def check(self, endpoint: str, model: str | None) -> str:
        """The served name that ``model`` means. Raises RequestError: 404 where it is not served, 400 where the endpoint is not,
        429 where too much waits."""
        names = self.config.model.served_names
        if model is not None and model not in names:
            raise RequestError(
                f"The model {model[:200]!r} does not exist; served here: {', '.join(names)}.",
                param="model",
                code="model_not_found",
                http_status=404,
            )
        if endpoint not in self.endpoints:
            raise RequestError(
                f"This instance does not serve {endpoint} (task {self.config.model.task}); it serves: "
                f"{', '.join(sorted(self.endpoints))}.",
                code="endpoint_not_served",
            )
        if self.client.dead is not None:
            raise self.client.dead
        self.admission.check()
        return model or names[0]

    def check_priority(self, priority: int) -> int:
        """``priority`` where the scheduling policy takes it. Raises RequestError."""
        if not -(2**63) <= priority < 2**63:
            raise RequestError(f"priority cannot be {priority}; allowed: a signed 64-bit integer.", param="priority")
        problem = self.faults.call(self.plugin("policy", ""), self.policy.check, priority) if self.policy is not None else None
        if self.policy is None and priority != 0:
            problem = f"priority cannot be {priority}; allowed: 0"
        if problem is not None:
            raise RequestError(problem, param="priority")
        return priority

    def plugin(self, kind: str, name: str) -> Choice:
        """The plugin of that kind that requests chose by ``name``, or that the server runs with."""
        named = {"logits_processor": self.config.processors.choices, "guided_decoding": self.config.guided.choices}.get(kind, {})
        found = named.get(name) or self.config.choices.get(kind)
        return found or Choice(kind=kind, name=name, module=name, distribution="no distribution", asked=name)

    def log_request(self, request_id: str, endpoint: str, prompts: list[list[int]], params: Any) -> None:
        """One line per request: lengths, and the ids of prompts only where --max-log-len asks for them."""
        if self.config.server.disable_log_requests:
            return
        shown = ""
        cut = self.config.server.max_log_len
        if cut:
            shown = f" prompt_ids={[prompt[:cut] for prompt in prompts]}"
        log.info(
            "request %s %s prompts=%d prompt_tokens=%d n=%d max_tokens=%s temperature=%s%s",
            request_id, endpoint, len(prompts), sum(map(len, prompts)), params.n, params.max_tokens, params.temperature, shown,
        )  # fmt: skip

    def close(self) -> None:
        """End the threads."""
        self.guides.close()
        self.encoder.close()
        self.renderer.close()


def _ending_tokens(config: EngineConfig, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Every id that the model's config, its generation config or its tokenizer calls the end."""
    found = dict.fromkeys(config.model.info.eos_token_ids)
    stated = config.model.generation.get("eos_token_id")
    for token in stated if isinstance(stated, list) else [stated]:
        if isinstance(token, int):
            found[token] = None
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        found[tokenizer.eos_token_id] = None
    return tuple(found)


def _fingerprint(config: EngineConfig) -> str:
    """Changes with the model or any chosen plugin."""
    stated = msgspec.json.encode([config.model.checkpoint.model, config.model.dtype, sorted(map(repr, config.choices.values()))])
    return "fp_" + hashlib.sha256(stated).hexdigest()[:12]
