"""What is to be measured beyond the usual: traces, their details, hidden metrics."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.config import ObservabilityConfig
from engine.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs

#: Who says how spans travel, the first that is set.
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: Protocol → the module that sends.
EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
_DETAILS = {"model": ("model",), "worker": ("worker",), "all": ("model", "worker")}


def observability_config(args: EngineArgs) -> ObservabilityConfig:
    """Raises ConfigError for values that mean nothing, and MissingDependency where spans cannot be sent."""
    since = args.show_hidden_metrics_for_version
    if since is not None and not re.fullmatch(r"\d{1,4}\.\d{1,4}", since):
        raise ConfigError(f"--show-hidden-metrics-for-version {since!r} is no release X.Y.", fix="--show-hidden-metrics-for-version 0.0")
    details = tuple(sorted({part for name in args.collect_detailed_traces or () for part in _DETAILS[name]}))
    protocol = "grpc"
    if args.otlp_traces_endpoint is not None:
        _check_address(args.otlp_traces_endpoint)
        protocol = _protocol()
    return ObservabilityConfig(
        traces_endpoint=args.otlp_traces_endpoint, traces_protocol=protocol, details=details, hidden_since=since
    )


def _check_address(text: str) -> None:
    try:
        address = urlsplit(text)
        fits = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"--otlp-traces-endpoint {text!r} is no URL of a collector.", fix="--otlp-traces-endpoint http://127.0.0.1:4317")


def _protocol() -> str:
    variable, protocol = next(((name, os.environ[name]) for name in _VARIABLES if os.environ.get(name)), ("", "grpc"))
    if protocol not in EXPORTERS:
        raise ConfigError(f"{variable}={protocol}: not among {', '.join(EXPORTERS)}.", fix=f"{variable}=grpc")
    for module in ("opentelemetry.sdk.trace", EXPORTERS[protocol]):
        if not _installed(module):
            raise MissingDependency(
                f"--otlp-traces-endpoint needs {module}, which is not installed.", fix="pip install 'engine[otlp]'"
            )
    return protocol


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
