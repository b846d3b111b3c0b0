"""From flags to the frozen configuration: the only place that makes an :class:`engine.config.EngineConfig`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from engine import plan
from engine.args import model_facts, quantization, serving
from engine.args.adapter import adapter_settings, loader_options
from engine.args.devices import choose_device, offload_bytes
from engine.args.engine_args import EngineArgs, raise_problems
from engine.args.guided import LOADED, guided_config
from engine.args.limits import scheduler_config
from engine.args.observability import observability_config
from engine.args.parsers import choose_parser, split_options
from engine.args.processors import processor_config
from engine.args.rules import check_rules, host_memory
from engine.args.shapes import FAMILIES, check_shapes, expected_tensors
from engine.checkpoint import locate, single_gguf
from engine.config import (
    CacheConfig,
    EngineConfig,
    GuidedConfig,
    LoadConfig,
    ModelConfig,
    ObservabilityConfig,
    ParallelConfig,
    ProcessorConfig,
    RunConfig,
    SchedulerConfig,
    ServerConfig,
)
from engine.errors import ConfigError
from engine.plugin import kinds
from engine.plugin.api import Choice
from engine.plugin.facts import Checkpoint, DeviceFacts, ModelInfo

if TYPE_CHECKING:
    from engine.plugin.contracts.packed import Quantizer
    from engine.plugin.host import PluginHost

T = TypeVar("T")


def resolve(args: EngineArgs, host: PluginHost | None = None, *, loads: bool = True) -> EngineConfig:
    """Decide everything, reading headers and configuration files alone; torch is not imported, no weight is read.

    ``loads``: whether a model will be loaded, so that it and its cache must have room.

    Raises the :class:`engine.errors.EngineError` of whatever cannot be: flags (2), plugins (3), model files (4), memory (5).
    """
    if args.plugin:
        from engine.plugin.files import add_files

        add_files(list(args.plugin))
    if host is None:
        from engine.plugin.host import PluginHost

        host = PluginHost()
    return Resolver(args, host, loads=loads).resolve()


class Resolver:
    """The decisions in their order. What is decided stays readable when a later step refuses, for ``engine plan``."""

    def __init__(self, args: EngineArgs, host: PluginHost, *, loads: bool = True) -> None:
        self.args = args
        self.host = host
        self.loads = loads
        self.choices: dict[str, Choice] = {}
        self.warnings: list[str] = []
        self.checkpoint: Checkpoint | None = None
        self.config: dict[str, Any] | None = None
        self.generation: dict[str, Any] = {}
        self.device: DeviceFacts | None = None
        self.info: ModelInfo | None = None
        self.dtype: str | None = None
        self.dtype_reason = ""
        self.max_model_len: int | None = None
        self.load_format: str = args.load_format
        self.loader_options: dict[str, Any] = {}
        self.quantization: quantization.Quantization | None = None
        self.quantized: dict[str, Any] | None = None
        self.quantizer: Quantizer | None = None
        self.task = "generate"
        self.storage: str | None = None
        self.scaled = False
        self.weights: plan.Weights | None = None
        self.scheduler: SchedulerConfig | None = None
        self.server: ServerConfig | None = None
        self.guided = GuidedConfig()
        self.processors = ProcessorConfig()
        self.observability = ObservabilityConfig()
        self.cache: plan.CacheSize | None = None

    def resolve(self) -> EngineConfig:
        """All steps."""
        args, host = self.args, self.host
        raise_problems(check_rules(args))
        self.checkpoint = checkpoint = self._locate()
        if checkpoint.directory.is_file():
            self.load_format = host.resolve(kinds.LOADER, "gguf").name  # the only format that is a single file
        self.device, self.choices["device"] = device, _ = choose_device(host, args.device)
        info = self._describe(checkpoint, device)
        self.info, self.max_model_len, notes = model_facts.choose_length(args, info)
        self.warnings += notes
        self._choose_plugins(checkpoint, self.info)
        self.scheduler = scheduler_config(args, self.max_model_len, device.mixed_tokens)
        self.server = serving.server_config(args, self.generation)
        self.observability = observability_config(args)
        if self.server.host not in serving.LOCAL_HOSTS and not self.server.api_keys:
            self.warnings.append(f"--host {self.server.host} without --api-key: whoever reaches this machine can use the server.")
        self.weights = self._weigh(checkpoint, self.info)
        self.cache = self._size_cache(self.info, device, self.weights, self.max_model_len)
        return self._assemble(checkpoint, device)

    def _locate(self) -> Checkpoint:
        args = self.args
        by_name = args.tokenizer_mode == "custom"
        if args.code_revision is not None and not args.trust_remote_code:
            self.warnings.append(f"--code-revision {args.code_revision} is not used: without --trust-remote-code no such code is run.")
        found = locate(
            args.model, revision=args.revision, download_dir=args.download_dir, ignore_patterns=args.ignore_patterns,
            config_path=args.hf_config_path, tokenizer=None if by_name else args.tokenizer,
            tokenizer_revision=args.tokenizer_revision, trust_remote_code=args.trust_remote_code,
            code_revision=args.code_revision,
        )  # fmt: skip
        return single_gguf(found, args.load_format)

    def _describe(self, checkpoint: Checkpoint, device: DeviceFacts) -> ModelInfo:
        args, host = self.args, self.host
        self.config, own, self.choices["config_format"], notes = model_facts.read_config(args, host, checkpoint)
        self.warnings += notes
        self.generation = serving.generation_config(args, own)
        self.loader_options = loader_options(args)
        settings = adapter_settings(self.loader_options)
        self.quantization = quantization.choose_quantization(args, host, checkpoint, self.config, device, self.load_format, settings)
        if self.quantization is not None and self.load_format == "auto":
            self.load_format = quantization.own_loader(self.quantization, host)
        info, provider = model_facts.describe(args, host, self.config)
        self.choices.update(provider)
        overrides = args.override_generation_config or {}
        ends = serving.end_tokens(self.generation, overrides, info.eos_token_ids, info.vocab_size)
        info = msgspec.structs.replace(info, eos_token_ids=ends)
        self.dtype, self.dtype_reason = model_facts.choose_dtype(args, info, device)
        if {self.dtype, info.dtype} == {"float16", "bfloat16"}:
            lost = "range" if self.dtype == "float16" else "precision"
            self.warnings.append(f"The checkpoint is {info.dtype} and runs as {self.dtype}, which has less {lost}.")
        if self.quantization is not None:
            self._describe_quantization(self.quantization, checkpoint, device, info)
        model_facts.check_model(args, info, device)
        return info

    def _describe_quantization(
        self, found: quantization.Quantization, checkpoint: Checkpoint, device: DeviceFacts, info: ModelInfo
    ) -> None:  # fmt: skip
        self.warnings += quantization.check_dtype(found, _decided(self.dtype), device)
        shown = quantization.describe_quantization(self.host, found, checkpoint, info, device)
        self.choices["quantization"], self.quantized, self.quantizer = shown

    def _choose_plugins(self, checkpoint: Checkpoint, info: ModelInfo) -> None:
        """The plugins that only have a name yet (their objects are made where they work), and those that decide now."""
        args, host = self.args, self.host
        task = host.create(kinds.TASK, args.task, info=info)
        self.task, self.choices["task"] = task.choice.name, task.choice
        if not args.skip_tokenizer_init:
            self.choices["tokenizer"] = host.resolve(kinds.TOKENIZER, args.tokenizer_mode)
            if args.tokenizer_pool_size:
                self.choices["tokenizer_pool"] = pool = host.resolve(kinds.TOKENIZER_POOL, args.tokenizer_pool_type)
                host.options(kinds.TOKENIZER_POOL, pool, args.tokenizer_pool_extra_config or {})
        self.guided = guided_config(host, args.guided_decoding_backend, given="guided_decoding_backend" in args.given)
        self.processors = processor_config(host, args.logits_processor_pattern)
        self.choices["policy"] = host.resolve(kinds.POLICY, args.scheduling_policy)
        executor = args.distributed_executor_backend or ("uni" if args.tensor_parallel_size == 1 else "mp")
        self.choices["executor"] = host.resolve(kinds.EXECUTOR, executor)
        if args.tool_parser_plugin:
            host.add_file(kinds.TOOL_PARSER, args.tool_parser_plugin, "--tool-parser-plugin")
        for kind, flag in ((kinds.REASONING_PARSER, args.reasoning_parser), (kinds.TOOL_PARSER, args.tool_call_parser)):
            if flag is not None and not args.skip_tokenizer_init:
                name, _ = split_options(str(kind.flag), flag)
                template = serving.read_template(args.chat_template)
                self.choices[kind.name] = choose_parser(kind, name, host, checkpoint, template)
        serving.check_extensions(host, args)

    def _weigh(self, checkpoint: Checkpoint, info: ModelInfo) -> plan.Weights:
        created = self.host.create(
            kinds.LOADER, self.load_format, checkpoint=checkpoint, info=info, options=self.loader_options
        )
        self.choices["loader"] = created.choice
        try:
            created.plugin.serve_rank(0, self.args.tensor_parallel_size)
            tensors = list(created.plugin.describe())
            native = self.choices.get("model")
            family = native is not None and native.name in FAMILIES
            if family and created.plugin.complete() and not created.plugin.own_state():
                check_shapes(tensors, info, _decided(self.config))
            if family and not created.plugin.complete() and not tensors:
                tensors = expected_tensors(info, _decided(self.config), self.dtype or info.dtype)
            held = None if self.quantizer is None or created.plugin.own_state() else self.quantizer.held
            weights = plan.measure(tensors, info, self.dtype or info.dtype, held)
        finally:
            created.plugin.close()
        if not weights.tensors:
            self.warnings.append("There are no weight files to measure; the memory that the weights take is not in the plan.")
        return weights

    def _size_cache(
        self, info: ModelInfo, device: DeviceFacts, weights: plan.Weights, max_model_len: int
    ) -> plan.CacheSize:
        args, host = self.args, self.host
        kv_type = host.create(kinds.KV_CACHE_DTYPE, args.kv_cache_dtype)
        self.choices["kv_cache_dtype"] = kv_type.choice
        self.storage = kv_type.plugin.storage(self.dtype or info.dtype)
        self.scaled = kv_type.plugin.scaled()
        if args.calculate_kv_scales and not self.scaled:
            raise ConfigError(
                f"--calculate-kv-scales needs a KV cache with scales, which --kv-cache-dtype {args.kv_cache_dtype} has not.",
                fix="--kv-cache-dtype fp8",
            )
        preemption = host.create(kinds.PREEMPTION, args.preemption_mode or "recompute")
        self.choices["preemption"] = preemption.choice
        swaps = preemption.plugin.needs_host_pages()
        if not swaps and "swap_space" in args.given and args.swap_space:
            self.warnings.append(f"--swap-space {args.swap_space:g} is not used: --preemption-mode {preemption.choice.name} does not swap.")
        if swaps and args.swap_space * plan.GIB * args.tensor_parallel_size > 0.4 * host_memory() > 0:
            self.warnings.append(f"--swap-space {args.swap_space:g} may take more than 40 % of the host's memory.")
        wish = plan.CacheWish(
            block_size=args.block_size or device.block_size, fraction=args.gpu_memory_utilization, max_model_len=max_model_len,
            max_num_seqs=self.scheduler.max_num_seqs if self.scheduler else 1, tensor_parallel=args.tensor_parallel_size,
            pages_override=args.num_gpu_blocks_override, host_bytes=int(args.swap_space * plan.GIB) if swaps else 0,
            host_given="swap_space" in args.given, beside=LOADED if "tokenizer" in self.choices else 0,
        )  # fmt: skip
        if not self.loads:
            return plan.one_page(info, self.storage, wish)
        on_device = weights.on_device(offload_bytes(args, device), args.tensor_parallel_size)
        return plan.size_cache(info, self.storage, on_device, device, wish)

    def _assemble(self, checkpoint: Checkpoint, device: DeviceFacts) -> EngineConfig:
        from engine.report import report

        args = self.args
        return EngineConfig(
            model=self._model_config(checkpoint),
            load=LoadConfig(
                options=self.loader_options, progress=args.use_tqdm_on_load,
                cpu_offload_bytes=offload_bytes(args, device),
            ),
            cache=self._cache_config(),
            scheduler=_decided(self.scheduler),
            parallel=ParallelConfig(
                tensor_parallel=args.tensor_parallel_size, pipeline_parallel=args.pipeline_parallel_size,
                loading_workers=args.max_parallel_loading_workers,
            ),
            run=RunConfig(
                enforce_eager=args.enforce_eager,
                max_seq_len_to_capture=args.max_seq_len_to_capture,
                overlap=not args.disable_async_output_proc and not device.fills_host,
            ),
            server=_decided(self.server),
            device=device,
            choices=dict(self.choices),
            guided=self.guided,
            processors=self.processors,
            observability=self.observability,
            plan=report(self),
        )  # fmt: skip

    def _model_config(self, checkpoint: Checkpoint) -> ModelConfig:
        args = self.args
        return ModelConfig(
            checkpoint=checkpoint, config=_decided(self.config), info=_decided(self.info),
            generation=self.generation | (args.override_generation_config or {}),
            dtype=_decided(self.dtype), max_model_len=_decided(self.max_model_len),
            served_names=tuple(args.served_model_name or (args.model,)),
            seed=args.seed if args.seed is not None else int.from_bytes(os.urandom(8), "little") >> 1,
            task=self.task, skip_tokenizer_init=args.skip_tokenizer_init,
            tokenizer_name=args.tokenizer if args.tokenizer_mode == "custom" else None,
            tokenizer_pool_size=args.tokenizer_pool_size, tokenizer_pool_options=args.tokenizer_pool_extra_config or {},
            quantization=self.quantization.config if self.quantization else None,
        )  # fmt: skip

    def _cache_config(self) -> CacheConfig:
        size = _decided(self.cache)
        return CacheConfig(
            block_size=size.block_size, dtype=_decided(self.storage), pages=size.pages, host_pages=size.host_pages,
            page_bytes=size.page_bytes, prefix_caching=self.args.enable_prefix_caching is not False,
            memory_fraction=self.args.gpu_memory_utilization, pages_override=self.args.num_gpu_blocks_override,
            scaled=self.scaled, calculate_scales=self.args.calculate_kv_scales,
        )  # fmt: skip


def _decided(value: T | None) -> T:
    """A value that an earlier step has set."""
    if value is None:
        raise RuntimeError("a step of resolve() was left out")
    return value
