"""A tokenizer.json through the tokenizers library alone: quick to load, safe to use from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Tokenizer

from . import _compact
from ._settings import AddedToken, Settings, read_json, read_settings

if TYPE_CHECKING:
    import tokenizers

#: Vocabularies from here on take tens of MiB.
_LARGE = 65_536


class FastTokenizer(Tokenizer):
    """Two instances around one vocabulary: one recognises special tokens in a text, the other reads them as plain text.

    The flag that tells them apart belongs to the library's object, so changing it per call would not be thread-safe.
    """

    def __init__(self, place: Path) -> None:
        self._file = place / "tokenizer.json"
        read_size = self._file.stat().st_size
        if not self._file.is_file() or not read_size:
            raise ModelFileError(f"{self._file} is not a regular file with content.", fix="download it again")
        self._settings = read_settings(place)
        self._tokenizer = self._made()
        self._plain: tokenizers.Tokenizer | None = None
        self._lock = threading.Lock()

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        tokenizer = self._tokenizer if allow_special else self._without_special()
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        size = self.size()
        text: str = self._tokenizer.decode(
            [token for token in token_ids if 0 <= token < size], skip_special_tokens=skip_special_tokens
        )
        return text

    def token_text(self, token_id: int) -> str:
        return (self._tokenizer.id_to_token(token_id) or "") if token_id >= 0 else ""

    def size(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def special_ids(self) -> frozenset[int]:
        return self._special_ids

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def token_id(self, text: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(text)
        return found

    @property
    def eos_token_id(self) -> int | None:
        return self._named_id("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        return self._named_id("bos_token")

    def chat_template(self) -> str | dict[str, str] | None:
        return self._settings.chat_template

    def special_tokens(self) -> dict[str, str]:
        return dict(self._settings.named)

    def lean(self) -> Tokenizer:
        if self._tokenizer.get_vocab_size() < _LARGE:
            return self
        from ._lean import LeanTokenizer

        return LeanTokenizer.of(self, self._tokenizer, self._again) or self

    @property
    def _again(self) -> Callable[[], Tokenizer]:
        """Makes this tokenizer once more."""
        return partial(FastTokenizer, self._file.parent)

    def _named_id(self, role: str) -> int | None:
        text = self._settings.named.get(role)
        return None if text is None else self.token_id(text)

    def _made(self) -> tokenizers.Tokenizer:
        """A new instance."""
        return _load(self._file, self._settings)

    def _without_special(self) -> tokenizers.Tokenizer:
        with self._lock:
            if self._plain is None:
                # Added tokens whose ids have gaps are numbered by the file alone.
                self._plain = _beside(self._tokenizer) or self._made()
                self._plain.encode_special_tokens = True
            return self._plain


def _load(file: Path, settings: Settings) -> tokenizers.Tokenizer:
    """The tokenizer of the file, with the tokens that only its neighbours name, and without padding or truncation."""
    from tokenizers import AddedToken as LibraryToken
    from tokenizers import Tokenizer as LibraryTokenizer

    try:
        tokenizer = _compact.read(file) or LibraryTokenizer.from_file(str(file))
        # some contradictions in the file show only at the first use
        tokenizer.encode("a")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # A panic inside the library is no Exception, and its other errors are nothing more precise.
        # A file that is no JSON object at all has the better message of read_json.
        read_json(file)
        raise ModelFileError(f"{file} is not understood: {error}.", fix="download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = {_plain(token) for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for token in settings.declared if token not in known]
    texts = {token.content for token in known | set(missing)}
    for token in settings.special:
        if token.content not in texts:
            texts.add(token.content)
            missing.append(token)
    flags = ("special", "lstrip", "rstrip", "single_word", "normalized")
    tokenizer.add_tokens(
        [LibraryToken(token.content, **{flag: getattr(token, flag) for flag in flags}) for token in missing]
    )
    return tokenizer


def _beside(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer | None:
    """Another instance over the same model, which is most of a tokenizer; None where its added tokens would get other ids."""
    from tokenizers import Tokenizer as LibraryTokenizer

    made = LibraryTokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (value := getattr(tokenizer, part)) is not None:
            setattr(made, part, value)
    added = tokenizer.get_added_tokens_decoder()
    made.add_tokens([added[token_id] for token_id in sorted(added)])
    return made if made.get_added_tokens_decoder() == added else None


def _plain(token: tokenizers.AddedToken) -> AddedToken:
    return AddedToken(token.content, token.special, token.lstrip, token.rstrip, token.single_word, token.normalized)
