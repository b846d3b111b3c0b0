"""The offline API: ``LLM(model=…, **any_flag).generate(prompts, params)`` and ``.chat(messages, params)``."""

from __future__ import annotations

import asyncio
import atexit
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
from tqdm import tqdm

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.background import Background
from engine.client import EngineClient
from engine.config import EngineConfig
from engine.errors import ConfigError, RequestError
from engine.guided.fields import plain
from engine.messages import Stats
from engine.outputs import CompletionOutput, RequestOutput, name_logprobs
from engine.plugin.contracts.text import Tokenizer
from engine.plugin.request import SamplingParams
from engine.prompts import PromptLike, prompt_list, split_prompt
from engine.render.chat import Conversation
from engine.render.params import fill_bad_words, fit_context, verify
from engine.server.generation import Generation, Job
from engine.server.openai.answer import Collected
from engine.server.processors import check as check_processors
from engine.server.service import Service
from engine.tracing import Traces, traced

Messages = list[dict[str, Any]]


class LLM:
    """A model, loaded and ready. The engine runs in its own process; close it with :meth:`close` or a ``with`` block.

    ``model`` and every flag of ``engine serve``, with underscores (``max_model_len=2048``). Raises the errors of a failed start.
    """

    def __init__(self, model: str = "demo", **flags: Any) -> None:
        self.config: EngineConfig = resolve(EngineArgs(model=model, **flags))
        self._background = Background()
        self._client = EngineClient(self.config)
        try:
            self._background.wait(self._client.start())
            self._service = create_service(self.config, self._client)
            self._background.wait(self._service.guides.warm())
        except BaseException:
            self.close()
            raise
        self._finalizer = weakref.finalize(self, _shut_down, self._background, self._client, self._service)
        # An LLM that is still alive at the interpreter's end must stop its engine while threads still run.
        atexit.register(self._finalizer)

    def generate(
        self, prompts: PromptLike | Sequence[PromptLike], params: SamplingParams | Sequence[SamplingParams] | None = None,
        *, use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continue prompts (one, or a list); the answers come in the prompts' order.

        ``params``: one for all, one per prompt, or None for the model's defaults. Raises RequestError naming the field.
        """
        wanted = prompt_list(prompts)
        chosen = self._params_list(params, len(wanted))
        tasks = [self._complete(prompt, each) for prompt, each in zip(wanted, chosen, strict=True)]
        return self._background.wait(_gather(tasks, use_tqdm))

    def chat(
        self, messages: Messages | Sequence[Messages], params: SamplingParams | Sequence[SamplingParams] | None = None,
        *, tools: list[dict[str, Any]] | None = None, chat_template_kwargs: dict[str, Any] | None = None,
        add_generation_prompt: bool = True, continue_final_message: bool = False, use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answer conversations (one, or a list of them), rendered with the model's chat template."""
        conversations = [
            Conversation(
                messages=list(each), tools=tools, options=chat_template_kwargs or {},
                add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message,
            )
            for each in ([messages] if messages and isinstance(messages[0], dict) else messages)
        ]  # fmt: skip
        tasks = [
            self._converse(conversation, each)
            for conversation, each in zip(conversations, self._params_list(params, len(conversations)), strict=True)
        ]
        return self._background.wait(_gather(tasks, use_tqdm))

    def stream(self, messages: Messages, params: SamplingParams | None = None, **options: Any) -> Iterator[str]:
        """The text of one chat answer, piece by piece as it is generated; ``options`` are chat_template_kwargs."""
        yield from self._background.iterate(self._stream(Conversation(messages=messages, options=options), params))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, as a completion prompt would have them."""
        return self._background.wait(self._service.encoder.encode(text))

    def get_tokenizer(self) -> Tokenizer | None:
        """The tokenizer plugin in use; None with ``skip_tokenizer_init``."""
        return self._service.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What ``params=None`` means: the defaults of the model's generation config."""
        known = {name: value for name, value in self._service.limits.defaults.items() if name in SamplingParams.__struct_fields__}
        return SamplingParams(**known)

    def stats(self) -> Stats:
        """The engine's state and counters."""
        found: Stats = self._background.wait(self._stats())
        return found

    @property
    def client(self) -> EngineClient:
        """The engine below, which takes token ids and gives token ids; use it on :attr:`background`'s loop."""
        return self._client

    @property
    def background(self) -> Background:
        """The event loop that the engine's client lives on."""
        return self._background

    def reset_prefix_cache(self) -> bool:
        """Forget cached prefixes; False while requests run."""
        return bool(self._background.wait(self._client.call("reset_prefix_cache")))

    def close(self) -> None:
        """Stop the engine. May be called twice."""
        finalizer = getattr(self, "_finalizer", None)
        if finalizer is None:
            _shut_down(self._background, self._client)
        else:
            atexit.unregister(finalizer)
            finalizer()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _stats(self) -> Stats:
        return msgspec.convert(await self._client.call("stats"), Stats)

    async def _complete(self, prompt: PromptLike, params: SamplingParams) -> RequestOutput:
        turn = self._service.take_turn()
        text, given = split_prompt(prompt)
        with self._traced():
            ids = await self._service.encoder.encode(given, truncate=params.truncate_prompt_tokens)
            generation = await self._generation(ids, params, "prompt", turn)
        return await self._run(generation, params, text)

    async def _converse(self, conversation: Conversation, params: SamplingParams) -> RequestOutput:
        turn = self._service.take_turn()
        with self._traced():
            generation = await self._conversation(conversation, params, turn)
        return await self._run(generation, params, None)

    async def _conversation(self, conversation: Conversation, params: SamplingParams, turn: int) -> Generation:
        ids = await self._service.renderer.encode(msgspec.structs.replace(conversation, truncate=params.truncate_prompt_tokens))
        return await self._generation(ids, params, "messages", turn)

    def _traced(self) -> AbstractContextManager[None]:
        """What prepares a generation becomes part of its trace, which is sent when the generation ends."""
        trace = self._service.begin_trace(time.monotonic())
        return nullcontext() if trace is None else traced(trace)

    async def _run(self, generation: Generation, params: SamplingParams, text: str | None) -> RequestOutput:
        collected = [Collected() for _ in generation.choices]
        async for index, delta in generation.events():
            collected[index].add(delta)
        return self._answer(generation, collected, params, text)

    async def _stream(self, conversation: Conversation, params: SamplingParams | None) -> AsyncIterator[str]:
        turn, chosen = self._service.take_turn(), self._params_list(params, 1)[0]
        with self._traced():
            generation = await self._conversation(conversation, chosen, turn)
        async for _, delta in generation.events():
            yield delta.text

    async def _generation(self, ids: list[int], params: SamplingParams, param: str, turn: int) -> Generation:
        limits = self._service.limits
        verify(params, limits)
        params = fill_bad_words(params, self._service.tokenizer, limits)
        params = fit_context(params, len(ids), limits, param=param)
        await check_processors(self._service, params)
        if params.guide is not None:
            params = msgspec.structs.replace(params, guide=await self._service.guides.prepare("guide", plain(params.guide)))
        job = Job(
            prompts=[ids], params=[params], endpoint="offline", model=self.config.model.served_names[0], arrival=time.monotonic(),
            turn=turn,
        )
        return Generation(self._service, job)

    def _answer(
        self, generation: Generation, collected: list[Collected], params: SamplingParams, text: str | None
    ) -> RequestOutput:
        texts = self._service.texts
        outputs = []
        for index, number in enumerate(generation.returned(0)):
            choice, got = generation.choices[number], collected[number]
            with_logprobs = params.logprobs is not None
            outputs.append(
                CompletionOutput(
                    index=index,
                    text=got.text,
                    token_ids=tuple(got.token_ids),
                    cumulative_logprob=choice.cumulative_logprob if with_logprobs else None,
                    logprobs=[name_logprobs(entry, texts) for entry in got.logprobs] if with_logprobs else None,
                    finish_reason=got.finish_reason,
                    stop_reason=got.stop_reason,
                )
            )
        first = generation.choices[0]
        prompt_logprobs = None
        if params.prompt_logprobs is not None:
            prompt_logprobs = [None, *(name_logprobs(entry, texts) for entry in first.prompt_logprobs)]
        return RequestOutput(
            request_id=self._service.new_id(),
            prompt=text,
            prompt_token_ids=tuple(generation.job.prompts[0]),
            outputs=outputs,
            prompt_logprobs=prompt_logprobs,
            num_cached_tokens=first.cached_tokens,
        )

    def _params_list(self, params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
        self._background.check()
        if params is None:
            params = self.get_default_sampling_params()
        if not isinstance(params, SamplingParams | list | tuple):
            raise ConfigError(f"params are of type {type(params).__name__}.", fix="SamplingParams(…), or a list of them")
        if isinstance(params, SamplingParams):
            return [_tidy(params)] * count
        if len(params) != count:
            raise ConfigError(f"{len(params)} SamplingParams for {count} prompts.", fix="give one for all, or one per prompt")
        return [_tidy(each) for each in params]


def create_service(config: EngineConfig, client: EngineClient) -> Service:
    """Tokenizer, policy and renderers around a client, from the resolved plugins."""
    from engine.plugin.host import PluginHost, load
    from engine.plugin.kinds import POLICY
    from engine.render.pool import open_tokenizer

    tokenizer, pool = open_tokenizer(config, PluginHost())
    policy = load(config.choices["policy"], POLICY)
    return Service(config, client, tokenizer, policy=policy, pool=pool, traces=Traces.of(config))


def _shut_down(background: Background, client: EngineClient, service: Service | None = None) -> None:
    if background.open:
        background.wait(client.stop())
        if service is not None:
            background.wait(service.guides.stop())
            if service.traces is not None:
                background.wait(service.traces.close())
        background.close()


async def _gather(tasks: list[Coroutine[Any, Any, RequestOutput]], use_tqdm: bool) -> list[RequestOutput]:
    """All answers in order; the first failure cancels the rest."""
    with tqdm(total=len(tasks), desc="Prompts", disable=not use_tqdm, dynamic_ncols=True) as bar:

        async def counted(task: Coroutine[Any, Any, RequestOutput]) -> RequestOutput:
            answer = await task
            bar.update()
            return answer

        running = [asyncio.ensure_future(counted(task)) for task in tasks]
        try:
            return await asyncio.gather(*running)
        except BaseException:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise


def _tidy(params: SamplingParams) -> SamplingParams:
    """Lists and single texts, as people write them, in the declared form."""
    changes: dict[str, Any] = {}
    for name in ("stop", "stop_token_ids", "bad_words", "allowed_token_ids"):
        value = getattr(params, name)
        if isinstance(value, str):
            changes[name] = (value,)
        elif isinstance(value, list):
            changes[name] = tuple(value)
    tidy = msgspec.structs.replace(params, **changes) if changes else params
    try:
        # the engine would not understand a message with values of other types
        return msgspec.convert(msgspec.to_builtins(tidy, str_keys=False), SamplingParams)
    except (msgspec.ValidationError, TypeError) as error:
        reason, _, place = str(error).partition(" - at ")
        field = place.partition("$.")[2].partition("[")[0].rstrip("`") or None
        raise RequestError(f"{field or 'SamplingParams'}: {reason[:1].lower()}{reason[1:]}.", param=field) from error
