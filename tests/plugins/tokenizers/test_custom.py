"""--tokenizer-mode custom: --tokenizer names a plugin of the group engine.tokenizer."""

from __future__ import annotations

import pytest

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.checkpoint import locate
from engine.errors import ConfigError, UnknownPlugin
from engine.plugin.discovery import Entry, scan
from engine.plugin.host import PluginHost
from engine.plugin.kinds import TOKENIZER

WORDS = '''
"""Words of a text, numbered by their length."""
from engine.plugin import Tokenizer, hookimpl
ENGINE_API = 1
class Words(Tokenizer):
    bos_token_id = eos_token_id = 0
    def __init__(self, path): self.path = path
    def encode(self, text, *, add_special_tokens=True, allow_special=True): return [len(word) for word in text.split()]
    def decode(self, token_ids, *, skip_special_tokens=True): return " ".join("x" * token for token in token_ids)
    def token_text(self, token_id): return "x" * token_id
    def size(self): return 10
    def special_ids(self): return frozenset({0})
    def token_id(self, text): return len(text)
    def chat_template(self): return None
@hookimpl
def engine_create_tokenizer(checkpoint): return Words(checkpoint.tokenizer_path)
'''


@pytest.fixture
def host(tmp_path, monkeypatch):
    (tmp_path / "acme_words.py").write_text(WORDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = [entry for entry in scan() if entry.distribution.startswith("engine ")]
    return PluginHost([*own, Entry("tokenizer", "words", "acme_words", "acme 1")])


def test_a_registered_tokenizer(host):
    checkpoint = locate("demo")
    made = host.create(TOKENIZER, "custom", checkpoint=checkpoint, name="words")
    assert made.choice.name == "words" and made.choice.asked == "custom" and made.plugin.encode("one three") == [3, 5]
    assert made.plugin.path == checkpoint.tokenizer_path


def test_names_that_nobody_registered(host):
    with pytest.raises(UnknownPlugin, match="Did you mean words"):
        host.create(TOKENIZER, "custom", checkpoint=locate("demo"), name="word")
    with pytest.raises(ConfigError, match="needs the name of a registered tokenizer"):
        host.create(TOKENIZER, "custom", checkpoint=locate("demo"), name=None)


def test_the_name_reaches_the_configuration():
    made = resolve(EngineArgs(model="demo", tokenizer_mode="custom", tokenizer="words"))
    assert made.model.tokenizer_name == "words" and made.choices["tokenizer"].name == "custom"
    assert made.model.checkpoint.tokenizer_path == made.model.checkpoint.path
