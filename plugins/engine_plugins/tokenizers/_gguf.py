"""The vocabulary of a GGUF file in the tokenizers library."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.plugin import Tokenizer
from engine_plugins._gguf.model import GgufModel
from engine_plugins._gguf.vocabulary import Vocabulary, read_vocabulary

from ._fast import FastTokenizer
from ._settings import AddedToken, Settings

if TYPE_CHECKING:
    import tokenizers

#: Phi-3's special tokens take the white space behind them, but for these.
_UNTRIMMED = ("<unk>", "<s>", "<|endoftext|>")


class GgufTokenizer(FastTokenizer):
    """As the model's own tokenizer.json, put together from the metadata."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._vocabulary = read_vocabulary(GgufModel(file))
        self._settings = settings_of(self._vocabulary)
        self._tokenizer = self._made()
        self._plain: tokenizers.Tokenizer | None = None
        self._lock = threading.Lock()

    @property
    def _again(self) -> Callable[[], Tokenizer]:
        return partial(GgufTokenizer, self._file)

    def _made(self) -> tokenizers.Tokenizer:
        try:
            return build(self._vocabulary, self._settings)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # the library panics over some contradictions, which is no Exception
            raise ModelFileError(f"{self._file}: its vocabulary is not understood: {error}.", fix="download the file again") from error


def settings_of(vocabulary: Vocabulary) -> Settings:
    """What tokenizer_config.json says of other models."""
    declared = [
        AddedToken(piece, special=special, rstrip=vocabulary.trims and piece not in _UNTRIMMED) for piece, special in vocabulary.added()
    ]
    return Settings(vocabulary.named, tuple(declared), (), vocabulary.chat_template)


def build(vocabulary: Vocabulary, settings: Settings) -> tokenizers.Tokenizer:
    """The library's tokenizer."""
    from tokenizers import AddedToken as LibraryToken
    from tokenizers import Tokenizer as LibraryTokenizer

    made = LibraryTokenizer(_model(vocabulary))
    if vocabulary.model == "gpt2":
        _shape_bytes(made, vocabulary)
    else:
        _shape_pieces(made, vocabulary)
    made.add_tokens([
        LibraryToken(token.content, special=token.special, lstrip=False, rstrip=token.rstrip, single_word=False, normalized=False)
        for token in settings.declared
    ])  # fmt: skip
    around = [token for token in (vocabulary.first, vocabulary.last) if token is not None]
    if around:
        from tokenizers.processors import TemplateProcessing

        parts = [vocabulary.first, "$A", vocabulary.last]
        ids = vocabulary.ids()
        template = [part for part in parts if part is not None]
        made.post_processor = TemplateProcessing(single=template, special_tokens=[(token, ids[token]) for token in dict.fromkeys(around)])
    return made


def _model(vocabulary: Vocabulary) -> Any:
    from tokenizers.models import BPE

    if vocabulary.model == "gpt2":
        return BPE(vocab=vocabulary.ids(), merges=vocabulary.merges, ignore_merges=vocabulary.split.whole_words)
    unknown = vocabulary.named.get("unk_token")
    return BPE(vocab=vocabulary.ids(), merges=vocabulary.merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)


def _shape_bytes(made: Any, vocabulary: Vocabulary) -> None:
    from tokenizers import Regex, decoders, normalizers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    if vocabulary.split.nfc:
        made.normalizer = normalizers.NFC()
    cuts = [Split(Regex(pattern), "isolated") for pattern in vocabulary.split.patterns]
    made.pre_tokenizer = Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()


def _shape_pieces(made: Any, vocabulary: Vocabulary) -> None:
    from tokenizers import decoders, normalizers

    spaces = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if vocabulary.space_first else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if vocabulary.space_first else parts)
