"""A worker: one rank's device, model shard, KV pages and sequences, driven step by step."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from engine.config import EngineConfig
from engine.guided.backends import Backends
from engine.guided.store import GuideStore
from engine.plugin.contracts.device import Device
from engine.plugin.contracts.executor import CacheBudget, Worker
from engine.plugin.contracts.model import Model, torch_operations
from engine.plugin.facts import AttentionSpec
from engine.plugin.host_memory import Commitment, commit
from engine.plugin.request import GuideSpec
from engine.plugin.step import SequenceResult, Step, StepResult, TokenLogprobs, Work
from engine.worker.build import Progress, attention_of, build_model, load_weights, open_device, torch_dtype
from engine.worker.computed import Computed
from engine.worker.early import Early
from engine.worker.guides import Grammars
from engine.worker.inputs import StepInputs, assemble, describes_prompt
from engine.worker.kernels import Kernels, kernel_of
from engine.worker.kv_scales import calculate_scales
from engine.worker.limits import linear_work, measure_limits
from engine.worker.logprobs import describe_prompt
from engine.worker.masks import Masks
from engine.worker.memory import measure_budget, page_bytes, rehearse, used_bytes
from engine.worker.offload import Offload
from engine.worker.parallel import SingleProcess, TorchDistributed, join
from engine.worker.processors import Processors
from engine.worker.results import collect
from engine.worker.runner import StepRunner
from engine.worker.sampler import Rows, Sampled, Sampler
from engine.worker.sequences import SequenceTable
from engine.worker.swap import PagePool

if TYPE_CHECKING:
    from torch import Tensor


_log = logging.getLogger(__name__)


class LocalWorker(Worker):
    """The worker of ``rank`` in this process.

    ``rendezvous``: private directory where the ranks meet. ``progress``: told (phase, bytes done, bytes in all) while
    weights load.
    """

    def __init__(self, config: EngineConfig, rank: int, rendezvous: str, progress: Progress | None = None) -> None:
        self.config = config
        self.rank = rank
        self._rendezvous = rendezvous
        self._progress = progress
        self._device: Device | None = None
        self._parallel: SingleProcess | TorchDistributed | None = None
        self._processors = Processors(config.processors)
        self._grammars: Grammars | None = None
        self._commitment: Commitment | None = None
        self._weight_bytes = 0
        self._calculates = False
        self._early: Early | None = None
        self._timed = "model" in config.observability.details

    def load(self) -> None:
        """See the contract. Ranks load their weights in turns of ``loading_workers``."""
        config = self.config
        torch.manual_seed(config.model.seed or 0)
        self._device = device = open_device(config, self.rank)
        self._torch_device = device.torch_device()
        used = used_bytes(device)
        self._parallel = join(
            self.rank, config.parallel.tensor_parallel, config.parallel.pipeline_parallel, self._rendezvous,
            device.collective_backend(), self._torch_device,
        )  # fmt: skip
        self._attention = attention_of(device, config)
        with torch.inference_mode(), self._parallel.turn(config.parallel.loading_workers):
            self._kernels = Kernels(device)
            self._offload = self._create_offload(device)
            self._model: Model = build_model(config, device, self._parallel, self._attention, self._kernels, self._offload)
            load_weights(self._model, config, self.rank, self._progress)
        for layout, layers in (self._kernels.without() if self.rank == 0 else {}).items():
            _log.warning("%s has no kernel for the layout %s: %d layers are dequantized at each product.", device.name, layout, layers)
        device.synchronize()
        self._weight_bytes = max(0, used_bytes(device) - used)
        self._ops = device.operations() or torch_operations()
        self._grammars = self._create_grammars()
        self._sampler = Sampler(Masks(self._processors.get, self._grammars), self._ops)

    @torch.inference_mode()
    def budget(self) -> CacheBudget:
        """See :func:`~engine.worker.memory.measure_budget`; a device with memory of its own runs the largest step first."""
        device, config = self._opened(), self.config
        if self._torch_device.type != "cpu":
            caches = self._caches(1)
            rehearse(self._model, caches, config, self._torch_device)
            device.synchronize()
        return measure_budget(config, device, page_bytes(config, self._attention, self._specs()), self._weight_bytes)

    @torch.inference_mode()
    def allocate(self, pages: int, host_pages: int) -> None:
        """See the contract; records decode steps where the device can and ``--enforce-eager`` does not forbid it."""
        config, device = self.config, self._opened()
        block_size = config.cache.block_size
        caches = self._caches(pages)
        if self._torch_device.type == "cpu":
            self._commitment = commit(caches)
        self._pages = PagePool(caches, host_pages)
        self._table = SequenceTable(block_size, config.model.max_model_len, config.scheduler.max_num_seqs)
        self._runner = StepRunner(self._model, caches, block_size, self._torch_device, self._ops)
        # What is measured begins when it is asked for; and only who samples knows the tokens that follow.
        if not self._timed and config.parallel.tensor_parallel == config.parallel.pipeline_parallel == 1:
            self._early = Early(self._runner, self._table)
        self._calculates = config.cache.calculate_scales
        if self._calculates:
            calculate_scales(self._model)
            self._runner.plain = "the first step calculates the scales of the KV cache"
        else:
            self._record(device)
        device.synchronize()

    def _record(self, device: Device) -> None:
        """Have decode steps recorded, where nothing stands against it."""
        config, recorder = self.config, device.recorder()
        if config.run.enforce_eager:
            self._runner.plain = "--enforce-eager"
        elif not self._model.recordable:
            self._runner.plain = "the model decides from values which of its parts run"
        elif self._offload is not None:
            self._runner.plain = "--cpu-offload-gb: weights are copied during a step"
        elif recorder is None:
            self._runner.plain = f"the device {device.name} does not record steps"
        else:
            longest = min(config.run.max_seq_len_to_capture, config.model.max_model_len)
            self._runner.record(recorder, config.scheduler.max_num_seqs, longest, config.scheduler.max_num_batched_tokens)

    @torch.inference_mode()
    def run(self, step: Step) -> StepResult:
        """See the contract. Only rank 0 samples; the other ranks' results are empty."""
        began = time.perf_counter()
        if step.connector is not None:
            raise ValueError("the step has data for a KV connector, but this worker has none")
        inputs = None if self._early is None else self._early.claim(step)
        if inputs is None:
            inputs = self._prepare(step)
        results: list[SequenceResult] = []
        forward = 0.0
        if inputs is not None:
            rows = self._sampler.prepare(inputs) if self.rank == 0 else None
            if self._grammars is not None:
                self._grammars.begin(inputs)
            computed, forward = self._compute(inputs)
            sampled = self._sample(rows, computed)
            prompts = self._prompt_logprobs(step.work, inputs, computed) if inputs.every else {}
            if sampled is not None:
                results = collect(step.work, inputs, sampled, prompts)
                if self._grammars is not None:
                    results = self._grammars.foresee(inputs, results)
                if self._early is not None:
                    self._early.begin(step.work, inputs, results)
            if self._calculates:
                # A recorded step keeps the scales that it was recorded with.
                self._calculates = False
                self._record(self._opened())
        return StepResult(index=step.index, results=results, seconds=time.perf_counter() - began, forward=forward)

    def _prepare(self, step: Step) -> StepInputs | None:
        """Apply the step to what the worker knows; the inputs of its work, if it has any."""
        self._table.retire(step)
        self._pages.move(step)
        self._table.admit(step)
        if self._grammars is not None and step.new:
            self._grammars.admit(step.new)
        return assemble(self._table, step.work) if step.work else None

    def _compute(self, inputs: StepInputs) -> tuple[Computed, float]:
        """The forward pass, and its seconds where somebody wants them: the device must come to rest for that."""
        if not self._timed:
            return self._runner.run(inputs, None if self._early is None else self._early.successor), 0.0
        device = self._opened()
        device.synchronize()
        began = time.perf_counter()
        computed = self._runner.run(inputs)
        device.synchronize()
        return computed, time.perf_counter() - began

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """``memory``: total and free bytes now. ``describe``: the device's kernels, whether steps are recorded, and how
        many sequences are known. ``prepare_guide``: compile a constraint; whether it is ready. ``check_processors``: for
        every (name, arguments) of logits processors None or what is wrong. ``limits``, ``profile``: see the device's contract.
        ``work``: see :func:`~engine.worker.limits.linear_work`. ``prepare``: see :meth:`~engine.worker.runner.StepRunner.prepare`."""
        if self._early is not None:
            self._early.drop()
        if method == "memory":
            memory = self._opened().memory()
            return {"total": memory.total, "free": memory.free}
        if method == "describe":
            device = self._opened().describe() | self._kernels.describe() | (self._offload.describe() if self._offload else {})
            return {**device, "steps": self._runner.describe(), "sequences": len(self._table)}
        if method == "prepare_guide":
            return self._grammars is None or self._grammars.prepare(msgspec.convert(arguments["spec"], GuideSpec))
        if method == "check_processors":
            return [self._processors.problem(name, given) for name, given in arguments["asked"]] if self.rank == 0 else []
        if method == "limits":
            return measure_limits(self._opened(), arguments.get("dtype", self.config.model.dtype))
        if method == "work":
            return linear_work(self._model, self.config.model.dtype)
        if method == "prepare":
            with torch.inference_mode():
                return self._runner.prepare()
        if method == "profile":
            return self._opened().profile(bool(arguments["on"]))
        raise LookupError(method)

    def close(self) -> None:
        """See the contract."""
        if self._early is not None:
            self._early.drop()
        if self._commitment is not None:
            self._commitment.stop()
        if self._grammars is not None:
            self._grammars.close()
        if self._parallel is not None:
            self._parallel.close()
            self._parallel = None
        if self._device is not None:
            self._device.close()
            self._device = None

    def _opened(self) -> Device:
        if self._device is None:
            raise RuntimeError("the worker is not loaded")
        return self._device

    def _caches(self, pages: int) -> list[Tensor]:
        dtype = torch_dtype(self.config.cache.dtype, "--kv-cache-dtype")
        block_size = self.config.cache.block_size
        return [self._attention.allocate(s, pages, block_size, dtype, self._torch_device) for s in self._specs()]

    def _specs(self) -> list[AttentionSpec]:
        return [spec.sharded(self.config.parallel.tensor_parallel) for spec in self.config.model.info.layers]

    def _sample(self, rows: Rows | None, computed: Computed) -> Sampled | None:
        """Tokens on rank 0. None: not this rank's part."""
        if rows is None:
            return None
        if computed.tokens is not None:
            return Sampled(computed.tokens, {}, {})
        if computed.logits is None:
            return Sampled(np.zeros(0, np.int64), {}, {})
        return self._sampler.sample(computed.logits, rows, computed.best)

    def _prompt_logprobs(self, work: list[Work], inputs: StepInputs, computed: Computed) -> dict[int, list[TokenLogprobs]]:
        """Entries by work index, for the prompts that want them."""
        found, hidden = {}, computed.every()
        width = self.config.model.info.logits_size or self.config.model.info.vocab_size
        for i, (item, sequence) in enumerate(zip(work, inputs.sequences, strict=True)):
            if describes_prompt(sequence, item):
                rows = hidden[int(inputs.query_start[i]) : int(inputs.query_start[i + 1])]
                found[i] = describe_prompt(sequence, item, rows, self._model.logits, width)
        return found

    def _create_offload(self, device: Device) -> Offload | None:
        """What keeps weights in host memory; None where none are to stay there, or all are there anyway."""
        budget = self.config.load.cpu_offload_bytes
        if not budget or self.config.device.shared_memory:
            return None
        return Offload(budget, device, kernel_of(device))

    def _create_grammars(self) -> Grammars | None:
        """Guided decoding belongs to the rank that samples; it needs a tokenizer and a backend."""
        config = self.config
        if self.rank != 0 or not config.guided.choices or "tokenizer" not in config.choices:
            return None
        return Grammars(GuideStore(Backends(config)), self._ops)
