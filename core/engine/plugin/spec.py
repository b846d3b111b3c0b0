"""The hooks. A plugin module implements the one of its kind with ``@hookimpl``, taking only the arguments it needs.

Slot hooks create the one chosen plugin of a kind; each is called once per process that needs it and may answer ``Use(other name)``.
Extension hooks fan out to every enabled extension. No hook is called per step or per token.
Heavy imports (torch, transformers …) belong inside the hook, not at a plugin module's top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.plugin.api import Use, hookspec

if TYPE_CHECKING:
    from argparse import _ArgumentGroup
    from collections.abc import Callable

    from engine.plugin.contracts.device import Device
    from engine.plugin.contracts.executor import Executor, StartWorker, WorkerPlan
    from engine.plugin.contracts.generation import AcceptanceMethod, GuideCompiler, LogitsProcessor, Proposer
    from engine.plugin.contracts.loading import ConfigFormat, Loader
    from engine.plugin.contracts.packed import Quantizer
    from engine.plugin.contracts.producing import Producer, SourceModel
    from engine.plugin.contracts.scheduling import KVCacheType, PreemptionMode, SchedulingPolicy
    from engine.plugin.contracts.serving import KVConnector, ModelArchitecture, ModelImplementation, RequestRecord, Task
    from engine.plugin.contracts.text import ReasoningParser, Tokenizer, TokenizerPool, ToolParser
    from engine.plugin.facts import Checkpoint, DeviceFacts, ModelInfo, QuantizationFacts


@hookspec(firstresult=True)
def engine_create_loader(checkpoint: Checkpoint, info: ModelInfo | None, options: Any) -> Loader | Use:
    """Once per worker, and once for the plan. ``options``: the module's ``Options`` filled from --model-loader-extra-config, or None.
    ``info`` is None where the model is not described yet."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_config_format(checkpoint: Checkpoint) -> ConfigFormat | Use:
    """Once, in the front end."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_tokenizer(checkpoint: Checkpoint, name: str | None) -> Tokenizer | Use:
    """Once per front-end process. ``name``: what --tokenizer said, for tokenizers that are registered by name."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_tokenizer_pool(
    tokenizer: Tokenizer, size: int, create: Callable[[], Tokenizer], options: Any
) -> TokenizerPool | Use:
    """Once per front-end process, where --tokenizer-pool-size > 0. ``create`` makes the tokenizer anew; it can be pickled."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_quantizer(checkpoint: Checkpoint, config: dict[str, Any] | None, info: ModelInfo) -> Quantizer | Use:
    """Once per worker, and once for the plan, where torch must stay unimported: formats import it when they pack.

    ``config``: the checkpoint's quantization_config (or the side file's content), None for online quantization. Raises
    :class:`engine.errors.ModelFileError` naming the key that it cannot read.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_describe_quantization() -> QuantizationFacts:
    """Of a quantization method, optional: what holds of it on every checkpoint. Once, in the front end, torch-free."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """Of a quantization method, optional: why it takes a checkpoint that names ``method`` ("": names none), or None where it does not.

    ``asked``: what --quantization said. Asked of the ``successors`` of the checkpoint's method and of the method that the flag names, and
    of all where a side file names none. In the front end, torch-free.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_probe_device() -> DeviceFacts:
    """For the plan and for ``--device auto``: torch-free, fast, never raises."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_choose_device(probes: list[DeviceFacts]) -> Use:
    """Only of a device plugin that stands for others (``auto``): which one to take, from every plugin's probe.

    Once, in the front end, before anything is created; torch-free. Raises :class:`engine.errors.UnavailablePlugin` where none fits.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_device(index: int, options: Any) -> Device | Use:
    """Once per worker; ``index`` is the local device number."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_executor(plan: WorkerPlan, start_worker: StartWorker) -> Executor | Use:
    """Once, in the engine process."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_policy() -> SchedulingPolicy | Use:
    """Once in the front end (checks of requests) and once in the engine process."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_preemption() -> PreemptionMode | Use:
    """Once, in the engine process and for the plan."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_kv_cache_type() -> KVCacheType | Use:
    """Once per worker and for the plan."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int, options: Any) -> GuideCompiler | Use:
    """On the first guided request. ``vocab_size`` is the width of the logits."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_model_impl() -> ModelImplementation | Use:
    """Once in the front end and once per worker."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_model() -> ModelArchitecture | Use:
    """Once in the front end (``describe``) and once per worker (``build``)."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_proposer(info: ModelInfo, options: dict[str, Any]) -> Proposer | Use:
    """Once per worker."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_acceptance(options: dict[str, Any]) -> AcceptanceMethod | Use:
    """Once per worker."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_kv_connector(options: dict[str, Any], role: str) -> KVConnector | Use:
    """Once in the engine process (``role`` scheduler) and once per worker (``role`` worker)."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_logits_processor(options: Any) -> LogitsProcessor | Use:
    """Once per worker, on first use."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_reasoning_parser(tokenizer: Tokenizer, options: Any) -> ReasoningParser | Use:
    """Once per front-end process."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_tool_parser(tokenizer: Tokenizer, options: Any) -> ToolParser | Use:
    """Once per front-end process."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_choose_parser(template: str, tokens: frozenset[str]) -> Use | None:
    """Only of a parser plugin that stands for others (``auto``): which one reads what a model writes. None: none is recognised.

    ``template``: the source of the chat template; ``tokens``: the vocabulary's added tokens. Once, in the front end; torch-free.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_task(info: ModelInfo) -> Task | Use:
    """Once, in the front end."""
    raise NotImplementedError


@hookspec(firstresult=True)
def engine_create_producer(model: SourceModel, options: Any) -> Producer | Use:
    """Once, by ``engine quantize``. ``options``: the module's ``Options`` filled from --method-config and --group-size, or None.

    Raises :class:`engine.errors.ConfigError` naming the option or the layer that the method cannot do.
    """
    raise NotImplementedError


@hookspec
def engine_add_arguments(parser: _ArgumentGroup) -> None:
    """Extension: add flags of its own, named ``--<extension>-…``. The value of ``--acme-most`` is the option ``most`` of the extension
    ``acme``, as --extension-options would give it; a flag that is not given leaves the default of its ``Options``."""


@hookspec
def engine_add_routes(app: Any, client: Any) -> None:
    """Extension: add routes (and middleware) to the FastAPI application; they stand behind the API key like every other.

    ``app.state.extension_options`` has the JSON object of --extension-options, by extension; the extension's own part has been checked
    against its ``Options``. ``request.state.key`` is the name of the caller's API key (``key1`` for the server's first).
    """


@hookspec
def engine_started(info: dict[str, Any]) -> None:
    """Extension: the server is healthy; ``info`` is the plan."""


@hookspec
def engine_stopping() -> None:
    """Extension: the server ends."""


@hookspec
def engine_request_finished(record: RequestRecord) -> None:
    """Extension: a request ended. The hottest hook: once per request."""
