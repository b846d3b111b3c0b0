"""Suites of tokenizers and tokenizer pools."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.plugin.contracts.text import Tokenizer, TokenizerPool
from engine.plugin.testing.base import PluginContract, requires
from engine.plugin.testing.loading import checkpoint_at

#: Scripts, code points beyond 16 bits, combining marks, white space of all kinds, code.
TEXTS = (
    "Hello, world!", "  two  spaces\tand\ttabs\n\nand lines\r\n", "Grüße, señor — naïve café", "Привет, мир", "你好，世界。",
    "こんにちは世界", "مرحبا بالعالم", "नमस्ते दुनिया", "👩‍👩‍👧‍👦 and 🏳️‍🌈", "e\u0301 and \u200b zero",
    "def f(x):\n    return {'a': [x ** 2]}", "1234567890 3.14159", "a" * 300,
)  # fmt: skip


def demo_tokenizer() -> Tokenizer:
    """The bundled demo model's tokenizer, through the engine's own plugin."""
    import engine
    from engine.plugin.host import PluginHost
    from engine.plugin.kinds import TOKENIZER

    place = Path(engine.__file__).parent / "bundled" / "demo"
    return PluginHost().create(TOKENIZER, "auto", checkpoint=checkpoint_at(place), name=None).plugin


class TokenizerContract(PluginContract):
    """Override ``place`` with a directory in your format.

    Capabilities: ``exact`` (decode gives back what encode was given, byte for byte, without special tokens);
    ``end`` (there is a token for the end of the output).
    """

    kind_name = "tokenizer"
    capabilities = frozenset({"exact", "end"})
    supports: ClassVar[frozenset[str]] = frozenset({"exact", "end"})
    texts: ClassVar[tuple[str, ...]] = TEXTS

    @pytest.fixture
    def place(self, tiny_checkpoint: Path) -> Path:
        """A directory with the tokenizer."""
        return tiny_checkpoint

    @pytest.fixture
    def hook_args(self, place: Path) -> dict[str, Any]:
        return {"checkpoint": checkpoint_at(place), "name": None}

    @requires("exact")
    def test_decoding_gives_the_text_back(self, plugin: Tokenizer) -> None:
        for text in self.texts:
            assert plugin.decode(plugin.encode(text, add_special_tokens=False), skip_special_tokens=False) == text

    def test_ids_are_in_range(self, plugin: Tokenizer) -> None:
        for text in self.texts:
            ids = plugin.encode(text)
            assert all(isinstance(token, int) and 0 <= token < plugin.size() for token in ids), (text, ids)
        assert all(0 <= token < plugin.size() for token in plugin.special_ids())

    def test_ids_outside_the_vocabulary_decode_to_nothing(self, plugin: Tokenizer) -> None:
        ids = plugin.encode("Hello", add_special_tokens=False)
        assert plugin.decode([*ids, plugin.size() + 1000]) == plugin.decode(ids)

    def test_vocabulary_entries_are_found_by_their_text(self, plugin: Tokenizer) -> None:
        for text in self.texts[:4]:
            for token in plugin.encode(text):
                assert plugin.token_id(plugin.token_text(token)) == token
        assert plugin.token_id("no such entry ✂ zz") is None

    @requires("end")
    def test_the_end_token_is_special(self, plugin: Tokenizer) -> None:
        assert plugin.eos_token_id is not None
        assert 0 <= plugin.eos_token_id < plugin.size()
        assert plugin.decode([plugin.eos_token_id]) == ""

    def test_a_users_text_never_becomes_a_special_token(self, plugin: Tokenizer) -> None:
        for token in sorted(plugin.special_ids())[:20]:
            text = plugin.token_text(token)
            ids = plugin.encode(f"a {text} b", add_special_tokens=False, allow_special=False)
            assert not plugin.special_ids() & set(ids), f"{text!r} of a user became a special token"

    def test_threads_agree(self, plugin: Tokenizer) -> None:
        alone = [plugin.encode(text) for text in self.texts]
        with ThreadPoolExecutor(4) as pool:
            rounds = list(pool.map(lambda _: [plugin.encode(text) for text in self.texts], range(8)))
        assert all(each == alone for each in rounds)


class TokenizerPoolContract(PluginContract):
    """A pool encodes as the tokenizer it was given does, from many tasks at once."""

    kind_name = "tokenizer_pool"

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        return {"tokenizer": demo_tokenizer(), "size": 2, "create": demo_tokenizer, "options": dict(self.options)}

    def test_it_encodes_as_the_tokenizer_does(self, plugin: TokenizerPool, hook_args: dict[str, Any]) -> None:
        async def all_at_once() -> list[list[int]]:
            jobs = (plugin.encode(text, add_special_tokens=True, allow_special=True) for text in TEXTS * 4)
            return list(await asyncio.gather(*jobs))

        assert asyncio.run(all_at_once()) == [hook_args["tokenizer"].encode(text) for text in TEXTS * 4]

    def test_special_tokens_of_users_stay_text(self, plugin: TokenizerPool, hook_args: dict[str, Any]) -> None:
        tokenizer: Tokenizer = hook_args["tokenizer"]
        text = tokenizer.token_text(min(tokenizer.special_ids()))
        ids = asyncio.run(plugin.encode(text, add_special_tokens=False, allow_special=False))
        assert ids == tokenizer.encode(text, add_special_tokens=False, allow_special=False)
