"""The name of each kind's suite, for tools that must not import pytest."""

from __future__ import annotations

SUITE_NAMES: dict[str, str] = {
    "loader": "LoaderContract", "config_format": "ConfigFormatContract", "tokenizer": "TokenizerContract",
    "tokenizer_pool": "TokenizerPoolContract", "quantization": "QuantizerContract", "device": "DeviceContract",
    "executor": "ExecutorContract", "policy": "PolicyContract", "preemption": "PreemptionContract",
    "kv_cache_dtype": "KVCacheTypeContract", "guided_decoding": "GuideContract", "model_impl": "ModelImplementationContract",
    "model": "ModelContract", "speculation": "ProposerContract", "acceptance": "AcceptanceContract",
    "kv_connector": "KVConnectorContract", "logits_processor": "LogitsProcessorContract",
    "reasoning_parser": "ReasoningParserContract", "tool_parser": "ToolParserContract", "task": "TaskContract",
    "producer": "ProducerContract", "extension": "ExtensionContract",
}  # fmt: skip
