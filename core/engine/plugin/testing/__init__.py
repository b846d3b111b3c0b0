"""The conformance kit: one suite per kind of plugin, subclassed in a few lines, and the fixtures they use (extra ``testing``).

    from engine.plugin.testing import LoaderContract

    class TestNpz(LoaderContract):
        name = "npz"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.plugin.testing.base import PluginContract as PluginContract
    from engine.plugin.testing.checkpoint import write_tiny_checkpoint as write_tiny_checkpoint
    from engine.plugin.testing.devices import DeviceContract as DeviceContract
    from engine.plugin.testing.executors import ExecutorContract as ExecutorContract
    from engine.plugin.testing.guides import GuideContract as GuideContract
    from engine.plugin.testing.loading import ConfigFormatContract as ConfigFormatContract
    from engine.plugin.testing.loading import LoaderContract as LoaderContract
    from engine.plugin.testing.models import ModelContract as ModelContract
    from engine.plugin.testing.models import ModelImplementationContract as ModelImplementationContract
    from engine.plugin.testing.parsers import ReasoningParserContract as ReasoningParserContract
    from engine.plugin.testing.parsers import ToolParserContract as ToolParserContract
    from engine.plugin.testing.producing import ProducerContract as ProducerContract
    from engine.plugin.testing.quantizers import QuantizerContract as QuantizerContract
    from engine.plugin.testing.sampling import AcceptanceContract as AcceptanceContract
    from engine.plugin.testing.sampling import LogitsProcessorContract as LogitsProcessorContract
    from engine.plugin.testing.sampling import ProposerContract as ProposerContract
    from engine.plugin.testing.scheduling import KVCacheTypeContract as KVCacheTypeContract
    from engine.plugin.testing.scheduling import PolicyContract as PolicyContract
    from engine.plugin.testing.scheduling import PreemptionContract as PreemptionContract
    from engine.plugin.testing.serving import ExtensionContract as ExtensionContract
    from engine.plugin.testing.serving import KVConnectorContract as KVConnectorContract
    from engine.plugin.testing.serving import TaskContract as TaskContract
    from engine.plugin.testing.suites import SUITES as SUITES
    from engine.plugin.testing.suites import suite_of as suite_of
    from engine.plugin.testing.text import TokenizerContract as TokenizerContract
    from engine.plugin.testing.text import TokenizerPoolContract as TokenizerPoolContract

_HOME = {
    "base": "PluginContract",
    "loading": "ConfigFormatContract LoaderContract",
    "text": "TokenizerContract TokenizerPoolContract",
    "parsers": "ReasoningParserContract ToolParserContract",
    "guides": "GuideContract",
    "sampling": "AcceptanceContract LogitsProcessorContract ProposerContract",
    "scheduling": "KVCacheTypeContract PolicyContract PreemptionContract",
    "producing": "ProducerContract",
    "quantizers": "QuantizerContract",
    "devices": "DeviceContract",
    "executors": "ExecutorContract",
    "models": "ModelContract ModelImplementationContract",
    "serving": "ExtensionContract KVConnectorContract TaskContract",
    "suites": "SUITES suite_of",
    "checkpoint": "write_tiny_checkpoint",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'engine.plugin.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
