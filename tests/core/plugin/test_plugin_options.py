"""Options of plugins: typed by the plugin, refused by name."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.plugin.kinds import LOADER, SPECULATION
from tests.core.plugin.hermetic import ARGS, GOOD, HEAD, hermetic


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose plugins are the sources given to ``host.add(name, source)``."""
    return hermetic(tmp_path, monkeypatch)


OPTIONS = GOOD.replace(
    "class Nothing",
    "from dataclasses import dataclass\n@dataclass\nclass Options:\n    threads: int = 4\n    uri: str = 'x'\nclass Nothing",
)


def test_options_are_typed(host):
    host.add("opt", OPTIONS)
    made = host.create(LOADER, "opt", **ARGS | {"options": {"threads": 2}}).plugin
    assert (made.options.threads, made.options.uri) == (2, "x")
    assert host.options(LOADER, "opt", {}).threads == 4


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"thread": 1}, "has no option 'thread'. It knows: threads: int, uri: str"),
        ({"threads": "two"}, "option 'threads': Expected `int`"),
    ],
)
def test_wrong_options_are_refused_by_name(host, values, shown):
    host.add("opt", OPTIONS)
    with pytest.raises(ConfigError) as caught:
        host.options(LOADER, "opt", values)
    assert shown in str(caught.value)


def test_options_for_a_plugin_without_any(host):
    host.add("good", GOOD)
    assert host.options(LOADER, "good", {}) is None
    with pytest.raises(ConfigError, match="takes no options, but was given 'threads'"):
        host.create(LOADER, "good", **ARGS | {"options": {"threads": 2}})


def test_raw_options_stay_a_dict(host):
    source = HEAD.replace("Loader", "Proposer") + (
        "class P(Proposer):\n    def propose(self, sequences, count): return []\n"
        "@hookimpl\ndef engine_create_proposer(options):\n    p = P(); p.given = options; return p"
    )
    host.add("ngram", source, kind="speculation")
    assert host.create(SPECULATION, "ngram", info=None, options={"n": 3}).plugin.given == {"n": 3}
