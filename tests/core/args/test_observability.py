"""The flags of traces and metrics."""

from __future__ import annotations

import pytest

from engine.args import EngineArgs, observability
from engine.args.observability import observability_config
from engine.config import ObservabilityConfig
from engine.errors import ConfigError, MissingDependency


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in observability._VARIABLES:
        monkeypatch.delenv(name, raising=False)


def config(**flags):
    return observability_config(EngineArgs(model="demo", **flags))


def test_nothing_is_measured_unless_asked():
    assert config() == ObservabilityConfig()


@pytest.mark.parametrize(("asked", "expected"), [
    ("model", ("model",)), ("worker model", ("model", "worker")), ("all", ("model", "worker")), ("all model", ("model", "worker")),
])  # fmt: skip
def test_details(asked, expected):
    assert config(collect_detailed_traces=asked.split()).details == expected


def test_an_unknown_detail_is_named():
    with pytest.raises(ConfigError, match="attention.*not one of model, worker, all"):
        config(collect_detailed_traces=["model", "attention"])


@pytest.mark.parametrize("text", ["1", "x", "0.1.2", "v0.1", "0.-1", "0.", "", "99999.1"])
def test_a_release_has_two_numbers(text):
    with pytest.raises(ConfigError, match=r"no release X\.Y"):
        config(show_hidden_metrics_for_version=text)
    assert config(show_hidden_metrics_for_version="0.12").hidden_since == "0.12"


@pytest.mark.parametrize("text", ["localhost:4317", "ftp://host", "http://", "http://host:99999", "host", ""])
def test_the_collector_has_a_url(text):
    with pytest.raises(ConfigError, match="no URL of a collector"):
        config(otlp_traces_endpoint=text)


def test_the_protocol_comes_from_the_environment(monkeypatch):
    monkeypatch.setattr(observability, "_installed", lambda module: True)
    assert config(otlp_traces_endpoint="http://c:4317").traces_protocol == "grpc"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    assert config(otlp_traces_endpoint="http://c:4318").traces_protocol == "http/protobuf"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    assert config(otlp_traces_endpoint="http://c:4317").traces_protocol == "grpc"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    with pytest.raises(ConfigError, match="http/json: not among grpc, http/protobuf"):
        config(otlp_traces_endpoint="http://c:4317")


def test_a_missing_exporter_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(observability, "_installed", lambda module: False)
    with pytest.raises(MissingDependency, match=r"opentelemetry\.sdk\.trace") as raised:
        config(otlp_traces_endpoint="http://c:4317")
    assert raised.value.fix == "pip install 'engine[otlp]'"
    assert not observability._installed.__module__.startswith("opentelemetry")


def test_installed_looks_without_failing():
    assert observability._installed("json.decoder") and not observability._installed("no_such_package.inside")
