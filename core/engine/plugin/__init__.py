"""All that a plugin may import of the engine, beside ``engine.layers`` for models and quantizers. Names load lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.plugin.api import API_VERSION as API_VERSION
    from engine.plugin.api import Choice as Choice
    from engine.plugin.api import Use as Use
    from engine.plugin.api import hookimpl as hookimpl
    from engine.plugin.contracts.attention import AttentionBackend as AttentionBackend
    from engine.plugin.contracts.attention import AttentionBatch as AttentionBatch
    from engine.plugin.contracts.device import CannotRecord as CannotRecord
    from engine.plugin.contracts.device import Device as Device
    from engine.plugin.contracts.device import Memory as Memory
    from engine.plugin.contracts.device import RaggedReplay as RaggedReplay
    from engine.plugin.contracts.device import Recorder as Recorder
    from engine.plugin.contracts.device import Replay as Replay
    from engine.plugin.contracts.device import Succession as Succession
    from engine.plugin.contracts.device import UnderWay as UnderWay
    from engine.plugin.contracts.device import WeightTransfer as WeightTransfer
    from engine.plugin.contracts.executor import CacheBudget as CacheBudget
    from engine.plugin.contracts.executor import Executor as Executor
    from engine.plugin.contracts.executor import StartWorker as StartWorker
    from engine.plugin.contracts.executor import Worker as Worker
    from engine.plugin.contracts.executor import WorkerPlan as WorkerPlan
    from engine.plugin.contracts.generation import AcceptanceMethod as AcceptanceMethod
    from engine.plugin.contracts.generation import Draft as Draft
    from engine.plugin.contracts.generation import Guide as Guide
    from engine.plugin.contracts.generation import GuideCompiler as GuideCompiler
    from engine.plugin.contracts.generation import LogitsProcessor as LogitsProcessor
    from engine.plugin.contracts.generation import Matcher as Matcher
    from engine.plugin.contracts.generation import Proposer as Proposer
    from engine.plugin.contracts.generation import Stepper as Stepper
    from engine.plugin.contracts.generation import UnsupportedConstraint as UnsupportedConstraint
    from engine.plugin.contracts.loading import ConfigFormat as ConfigFormat
    from engine.plugin.contracts.loading import Loader as Loader
    from engine.plugin.contracts.model import AdapterBatch as AdapterBatch
    from engine.plugin.contracts.model import Batch as Batch
    from engine.plugin.contracts.model import Model as Model
    from engine.plugin.contracts.model import ModelContext as ModelContext
    from engine.plugin.contracts.model import Parallel as Parallel
    from engine.plugin.contracts.operations import GrammarSteps as GrammarSteps
    from engine.plugin.contracts.operations import Mixture as Mixture
    from engine.plugin.contracts.operations import Operations as Operations
    from engine.plugin.contracts.packed import CheckpointTensor as CheckpointTensor
    from engine.plugin.contracts.packed import LinearKernel as LinearKernel
    from engine.plugin.contracts.packed import LinearShape as LinearShape
    from engine.plugin.contracts.packed import LinearWork as LinearWork
    from engine.plugin.contracts.packed import PackedWeight as PackedWeight
    from engine.plugin.contracts.packed import PartFormats as PartFormats
    from engine.plugin.contracts.packed import Quantizer as Quantizer
    from engine.plugin.contracts.packed import WeightFormat as WeightFormat
    from engine.plugin.contracts.producing import ProducedWeight as ProducedWeight
    from engine.plugin.contracts.producing import Producer as Producer
    from engine.plugin.contracts.producing import SourceModel as SourceModel
    from engine.plugin.contracts.producing import WeightOutput as WeightOutput
    from engine.plugin.contracts.scheduling import KVCacheType as KVCacheType
    from engine.plugin.contracts.scheduling import PreemptionMode as PreemptionMode
    from engine.plugin.contracts.scheduling import RequestView as RequestView
    from engine.plugin.contracts.scheduling import SchedulingPolicy as SchedulingPolicy
    from engine.plugin.contracts.serving import KVConnector as KVConnector
    from engine.plugin.contracts.serving import ModelArchitecture as ModelArchitecture
    from engine.plugin.contracts.serving import ModelImplementation as ModelImplementation
    from engine.plugin.contracts.serving import RequestRecord as RequestRecord
    from engine.plugin.contracts.serving import Task as Task
    from engine.plugin.contracts.text import Delta as Delta
    from engine.plugin.contracts.text import ParserState as ParserState
    from engine.plugin.contracts.text import ReasoningParser as ReasoningParser
    from engine.plugin.contracts.text import Thinking as Thinking
    from engine.plugin.contracts.text import Tokenizer as Tokenizer
    from engine.plugin.contracts.text import TokenizerPool as TokenizerPool
    from engine.plugin.contracts.text import ToolCallDelta as ToolCallDelta
    from engine.plugin.contracts.text import ToolParser as ToolParser
    from engine.plugin.facts import AttentionSpec as AttentionSpec
    from engine.plugin.facts import Checkpoint as Checkpoint
    from engine.plugin.facts import DeviceFacts as DeviceFacts
    from engine.plugin.facts import ModelInfo as ModelInfo
    from engine.plugin.facts import QuantizationFacts as QuantizationFacts
    from engine.plugin.facts import TensorInfo as TensorInfo
    from engine.plugin.request import FinishReason as FinishReason
    from engine.plugin.request import GuideSpec as GuideSpec
    from engine.plugin.request import MultimodalItem as MultimodalItem
    from engine.plugin.request import PoolingParams as PoolingParams
    from engine.plugin.request import Request as Request
    from engine.plugin.request import SamplingParams as SamplingParams
    from engine.plugin.step import NewSequence as NewSequence
    from engine.plugin.step import SequenceResult as SequenceResult
    from engine.plugin.step import Step as Step
    from engine.plugin.step import StepResult as StepResult
    from engine.plugin.step import TokenLogprobs as TokenLogprobs
    from engine.plugin.step import Work as Work
    from engine.plugin.vocabulary import Vocabulary as Vocabulary

_HOME = {
    "engine.plugin.api": "API_VERSION Choice Use hookimpl",
    "engine.plugin.contracts.attention": "AttentionBackend AttentionBatch",
    "engine.plugin.contracts.device": "CannotRecord Device Memory RaggedReplay Recorder Replay Succession UnderWay WeightTransfer",
    "engine.plugin.contracts.executor": "CacheBudget Executor StartWorker Worker WorkerPlan",
    "engine.plugin.contracts.generation": (
        "AcceptanceMethod Draft Guide GuideCompiler LogitsProcessor Matcher Proposer Stepper UnsupportedConstraint"
    ),
    "engine.plugin.contracts.loading": "ConfigFormat Loader",
    "engine.plugin.contracts.model": "AdapterBatch Batch Model ModelContext Parallel",
    "engine.plugin.contracts.operations": "GrammarSteps Mixture Operations",
    "engine.plugin.contracts.packed": (
        "CheckpointTensor LinearKernel LinearShape LinearWork PackedWeight PartFormats Quantizer WeightFormat"
    ),
    "engine.plugin.contracts.producing": "ProducedWeight Producer SourceModel WeightOutput",
    "engine.plugin.contracts.scheduling": "KVCacheType PreemptionMode RequestView SchedulingPolicy",
    "engine.plugin.contracts.serving": "KVConnector ModelArchitecture ModelImplementation RequestRecord Task",
    "engine.plugin.contracts.text": (
        "Delta ParserState ReasoningParser Thinking Tokenizer TokenizerPool ToolCallDelta ToolParser"
    ),
    "engine.plugin.facts": "AttentionSpec Checkpoint DeviceFacts ModelInfo QuantizationFacts TensorInfo",
    "engine.plugin.request": "FinishReason GuideSpec MultimodalItem PoolingParams Request SamplingParams",
    "engine.plugin.step": "NewSequence SequenceResult Step StepResult TokenLogprobs Work",
    "engine.plugin.vocabulary": "Vocabulary",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'engine.plugin' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULE_OF[name]), name)
