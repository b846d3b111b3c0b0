"""The host: names to choices, choices to objects, and each way in which a plugin can fail."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass

import msgspec
import pytest

from engine.errors import (
    BadSignature,
    BrokenPlugin,
    ContractViolation,
    IncompatiblePlugin,
    MissingDependency,
    ModelFileError,
    PluginConflict,
    UnknownPlugin,
)
from engine.plugin.api import Choice
from engine.plugin.contracts.loading import Loader
from engine.plugin.host import load
from engine.plugin.kinds import DEVICE, LOADER, POLICY
from tests.core.plugin.hermetic import ARGS, GOOD, HEAD, hermetic


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose plugins are the sources given to ``host.add(name, source)``."""
    return hermetic(tmp_path, monkeypatch)


def test_creates_the_chosen_plugin_and_nothing_else(host):
    host.add("good", GOOD)
    host.add("other", "raise RuntimeError('imported although not chosen')")
    created = host.create(LOADER, "good", **ARGS)
    assert isinstance(created.plugin, Loader)
    assert created.choice.name == created.choice.asked == "good"


def test_resolving_imports_nothing(host):
    host.add("bad", "raise RuntimeError('imported')")
    choice = host.resolve(LOADER, "bad")
    assert choice.module not in sys.modules
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(choice), type=Choice) == choice
    assert pickle.loads(pickle.dumps(choice)) == choice


def test_unknown_name_lists_nearest_and_installed(host):
    host.add("safetensors", GOOD)
    host.add("gguf", GOOD)
    with pytest.raises(UnknownPlugin) as caught:
        host.resolve(LOADER, "safetensor")
    assert "--load-format safetensor: no such plugin" in str(caught.value)
    assert "Did you mean safetensors?" in str(caught.value)
    assert "Installed: gguf, safetensors" in str(caught.value)
    assert caught.value.fix == "--load-format safetensors"
    assert caught.value.status == 3


def test_two_distributions_with_one_name_conflict(host):
    host.add("good", GOOD, distribution="engine 0.1.0")
    host.add("good", GOOD, distribution="acme-conflict 0.3")
    with pytest.raises(PluginConflict, match=r"engine 0\.1\.0: .*acme-conflict 0\.3: ") as caught:
        host.create(LOADER, "good", **ARGS)
    assert caught.value.fix == "pip uninstall acme-conflict"


def test_missing_dependency_names_package_and_command(host):
    host.add("s3", HEAD + "import notthere_kernels\n")
    with pytest.raises(MissingDependency) as caught:
        host.create(LOADER, "s3", **ARGS)
    assert "--load-format s3 (from acme-engine 0.3) needs the package 'notthere_kernels'" in str(caught.value)
    assert caught.value.fix == "pip install notthere_kernels"


def test_missing_dependency_inside_the_hook(host):
    host.add("s3", HEAD + "@hookimpl\ndef engine_create_loader():\n    import notthere_kernels\n")
    with pytest.raises(MissingDependency, match="notthere_kernels"):
        host.create(LOADER, "s3", **ARGS)


@pytest.mark.parametrize(
    "line",
    [
        "from json import no_such_name",
        "from engine.plugin.api import no_such_name",
        "raise ImportError('by hand')",
        "from asyncio import nothing_like_it",
        "1 / 0",
        "assert False, 'boom'",
    ],
)
def test_errors_of_the_plugin_itself_are_not_missing_packages(host, line):
    host.add("bug", HEAD + line)
    with pytest.raises(BrokenPlugin) as caught:
        host.create(LOADER, "bug", **ARGS)
    assert "acme-engine" in str(caught.value)
    assert ".py:3)" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_import_error_of_the_plugins_own_package_is_its_bug(host):
    host.add("bug", HEAD + "import importlib\nimportlib.import_module(__name__ + '.missing')")
    with pytest.raises(BrokenPlugin, match="missing"):
        host.create(LOADER, "bug", **ARGS)


@pytest.mark.parametrize(("says", "shown"), [("ENGINE_API = 0", "plugin API 0"), ("", "does not say ENGINE_API")])
def test_other_api_version_is_incompatible(host, says, shown):
    host.add("old", GOOD.replace("ENGINE_API = 1", says))
    with pytest.raises(IncompatiblePlugin, match=shown) as caught:
        host.create(LOADER, "old", **ARGS)
    assert "this engine speaks 1" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("@hookimpl\ndef engine_create_loader(modle): pass", "modle"),
        ("@hookimpl\ndef engine_create_laoder(): pass", "engine_create_laoder"),
        ("", "does not implement the hook engine_create_loader"),
        ("def engine_create_loader(): pass", "without @hookimpl"),
    ],
)
def test_bad_signatures(host, body, shown):
    host.add("badsig", HEAD + body)
    with pytest.raises(BadSignature, match=shown) as caught:
        host.create(LOADER, "badsig", **ARGS)
    assert "--load-format badsig (from acme-engine 0.3)" in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("return 7", "builtins.int, which is not a Loader; it lacks describe, tensors"),
        ("return None", "returned None"),
        ("return Loader", "the class Loader instead of an object"),
        ("return type('Half', (Loader,), {'describe': lambda self: []})()", "tensors"),
    ],
)
def test_contract_violations(host, returned, shown):
    host.add("notc", f"{HEAD}@hookimpl\ndef engine_create_loader():\n    {returned}")
    with pytest.raises(ContractViolation, match=shown) as caught:
        host.create(LOADER, "notc", **ARGS)
    assert "acme-engine 0.3" in str(caught.value)


def test_an_engine_error_of_the_factory_passes_through(host):
    host.add("file", HEAD + "from engine.errors import ModelFileError\n@hookimpl\n"
             "def engine_create_loader(): raise ModelFileError('a file')")  # fmt: skip
    with pytest.raises(ModelFileError, match="a file"):
        host.create(LOADER, "file", **ARGS)


def test_use_is_followed_and_recorded(host):
    host.add("auto", HEAD + "@hookimpl\ndef engine_create_loader(): return Use('good', 'because')")
    host.add("good", GOOD)
    choice = host.create(LOADER, "auto", **ARGS).choice
    assert (choice.asked, choice.name, choice.reason) == ("auto", "good", "because")
    assert isinstance(load(choice, LOADER, **ARGS), Loader)


def test_use_in_circles_and_into_nothing(host):
    host.add("a", HEAD + "@hookimpl\ndef engine_create_loader(): return Use('b')")
    host.add("b", HEAD + "@hookimpl\ndef engine_create_loader(): return Use('a')")
    host.add("c", HEAD + "@hookimpl\ndef engine_create_loader(): return Use('nowhere')")
    with pytest.raises(ContractViolation, match="a → b → a"):
        host.create(LOADER, "a", **ARGS)
    with pytest.raises(UnknownPlugin, match=r"--load-format c \(from acme-engine 0.3\) refers"):
        host.create(LOADER, "c", **ARGS)
    with pytest.raises(ContractViolation, match="refers to 'b'"):
        load(host.resolve(LOADER, "a"), LOADER, **ARGS)


def test_secondary_hooks(host):
    host.add("cpu", HEAD + "@hookimpl\ndef engine_probe_device(): return 5", kind="device")
    assert host.call(DEVICE, "cpu", "engine_probe_device") == 5
    with pytest.raises(BadSignature, match="engine_create_device"):
        host.create(DEVICE, "cpu", index=0, options=None)


def test_the_engine_must_pass_every_argument(host):
    host.add("good", GOOD)
    with pytest.raises(TypeError, match="engine_create_loader is called with"):
        host.create(LOADER, "good", checkpoint=None)


def test_a_target_inside_a_module(host):
    host.add("boxed", HEAD + "from engine.plugin import SchedulingPolicy\n"
             "class Policy(SchedulingPolicy):\n    def key(self, request): return request.id\n"
             "class Box:\n    ENGINE_API = 1\n    @hookimpl\n    def engine_create_policy(self): return Policy()\n"
        "box = Box()",
             kind="policy")  # fmt: skip
    entry = host.entries(POLICY)[0]
    choice = Choice("policy", "boxed", f"{entry.module}:box", entry.distribution, "boxed")
    assert type(host.create(POLICY, choice).plugin).__name__ == "Policy"
    assert type(load(choice, POLICY)).__name__ == "Policy"


def test_loading_in_a_worker_needs_no_discovery(host, monkeypatch):
    host.add("good", GOOD)
    choice = host.resolve(LOADER, "good")
    monkeypatch.setitem(sys.modules, "stevedore", None)
    monkeypatch.setattr("engine.plugin.host.scan", lambda: pytest.fail("a worker searched for plugins"))
    assert isinstance(load(choice, LOADER, **ARGS), Loader)


@dataclass
class _Record:
    id: str


def test_a_failing_extension_is_named_and_survived(host, caplog):
    from engine.plugin.extensions import Extensions

    host.add(
        "bad",
        HEAD + "@hookimpl\ndef engine_request_finished(record): raise ValueError('observer bug')",
        kind="extension",
    )
    host.add(
        "fine",
        HEAD + "seen = []\n@hookimpl\ndef engine_request_finished(record): seen.append(record.id)",
        kind="extension",
    )
    Extensions(host, ["bad", "fine"]).request_finished(_Record("r1"))
    assert sys.modules[host.entries("extension")[1].module].seen == ["r1"]
    assert "--extensions bad (from acme-engine 0.3) failed: ValueError: observer bug" in caplog.text


def test_an_extension_that_cannot_be_loaded_ends_the_start(host):
    from engine.plugin.extensions import Extensions

    host.add("old", HEAD.replace("= 1", "= 7"), kind="extension")
    with pytest.raises(IncompatiblePlugin, match="plugin API 7"):
        Extensions(host, ["old"])
