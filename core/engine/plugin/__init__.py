"""All that a plugin may import of the engine (beside ``engine.layers`` for models and quantizers). Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.plugin.api import API_VERSION, Choice, Use, hookimpl
    from engine.plugin.contracts.attention import AttentionBackend, AttentionBatch
    from engine.plugin.contracts.device import Device, Memory, Recorder, Replay
    from engine.plugin.contracts.executor import CacheBudget, Executor, StartWorker, Worker, WorkerPlan
    from engine.plugin.contracts.generation import (
        AcceptanceMethod, Draft, Guide, GuideCompiler, LogitsProcessor, Matcher, Proposer,
    )
    from engine.plugin.contracts.loading import ConfigFormat, Loader
    from engine.plugin.contracts.model import AdapterBatch, Batch, Model, ModelContext, Parallel
    from engine.plugin.contracts.packed import (
        CheckpointTensor, LinearKernel, LinearShape, PackedWeight, Quantizer, WeightFormat,
    )
    from engine.plugin.contracts.scheduling import KVCacheType, PreemptionMode, RequestView, SchedulingPolicy
    from engine.plugin.contracts.serving import (
        KVConnector, ModelArchitecture, ModelImplementation, RequestRecord, Task,
    )
    from engine.plugin.contracts.text import (
        Delta, ParserState, ReasoningParser, Tokenizer, TokenizerPool, ToolCallDelta, ToolParser,
    )
    from engine.plugin.facts import AttentionSpec, Checkpoint, DeviceFacts, ModelInfo, TensorInfo
    from engine.plugin.request import FinishReason, GuideSpec, MultimodalItem, PoolingParams, Request, SamplingParams
    from engine.plugin.step import NewSequence, SequenceResult, Step, StepResult, TokenLogprobs, Work

_HOME = {
    "engine.plugin.api": "API_VERSION Choice Use hookimpl",
    "engine.plugin.contracts.attention": "AttentionBackend AttentionBatch",
    "engine.plugin.contracts.device": "Device Memory Recorder Replay",
    "engine.plugin.contracts.executor": "CacheBudget Executor StartWorker Worker WorkerPlan",
    "engine.plugin.contracts.generation": "AcceptanceMethod Draft Guide GuideCompiler LogitsProcessor Matcher Proposer",
    "engine.plugin.contracts.loading": "ConfigFormat Loader",
    "engine.plugin.contracts.model": "AdapterBatch Batch Model ModelContext Parallel",
    "engine.plugin.contracts.packed": "CheckpointTensor LinearKernel LinearShape PackedWeight Quantizer WeightFormat",
    "engine.plugin.contracts.scheduling": "KVCacheType PreemptionMode RequestView SchedulingPolicy",
    "engine.plugin.contracts.serving": "KVConnector ModelArchitecture ModelImplementation RequestRecord Task",
    "engine.plugin.contracts.text": "Delta ParserState ReasoningParser Tokenizer TokenizerPool ToolCallDelta ToolParser",
    "engine.plugin.facts": "AttentionSpec Checkpoint DeviceFacts ModelInfo TensorInfo",
    "engine.plugin.request": "FinishReason GuideSpec MultimodalItem PoolingParams Request SamplingParams",
    "engine.plugin.step": "NewSequence SequenceResult Step StepResult TokenLogprobs Work",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'engine.plugin' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULE_OF[name]), name)
