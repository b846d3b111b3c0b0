"""A large byte-pair tokenizer in a tenth of its memory: for processes that look at the vocabulary and encode a little."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from engine.plugin import Tokenizer

if TYPE_CHECKING:
    import tokenizers

#: Tokenizers with more added tokens stay as they are: each text is searched for them.
_MOST_ADDED = 2048
#: Words whose tokens are remembered.
_REMEMBERED = 4096
_NEVER = 1 << 40


class _Model(msgspec.Struct):
    """What the library writes of its byte-pair model."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]


class Words:
    """Texts by number and numbers by text, in one block of bytes."""

    def __init__(self, texts: Sequence[str]) -> None:
        written = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._bytes = b"".join(written)
        self._ends = array("I", [0])
        for text in written:
            self._ends.append(self._ends[-1] + len(text))
        self._order = array("I", sorted(range(len(written)), key=written.__getitem__))

    def __len__(self) -> int:
        return len(self._order)

    def _at(self, number: int) -> bytes:
        return self._bytes[self._ends[number] : self._ends[number + 1]]

    def text(self, number: int) -> str:
        """The text of that number; empty where there is none."""
        return self._at(number).decode("utf-8", "surrogatepass") if 0 <= number < len(self) else ""

    def number(self, text: str) -> int | None:
        """The number of a text that is not empty."""
        wanted = text.encode("utf-8", "surrogatepass")
        place = bisect_left(self._order, wanted, key=self._at)
        if not wanted or place == len(self) or self._at(self._order[place]) != wanted:
            return None
        return self._order[place]


class Merges:
    """Which pairs of tokens become one: the lowest rank first, and of equal ones the leftmost."""

    def __init__(self, pairs: array[int], ranks: array[int], made: array[int]) -> None:
        self._pairs, self._ranks, self._made = pairs, ranks, made

    @classmethod
    def of(cls, model: _Model) -> Merges | None:
        """None where the model's parts contradict each other."""
        import numpy

        vocab = model.vocab
        try:
            pairs = numpy.array([vocab[left] << 32 | vocab[right] for left, right in model.merges], numpy.uint64)
            made = array("I", [vocab[left + right] for left, right in model.merges])
        except KeyError:
            return None
        order = numpy.argsort(pairs, kind="stable")
        pairs = pairs[order]
        if (pairs[1:] == pairs[:-1]).any():
            return None
        return cls(array("Q", pairs.tobytes()), array("I", order.astype(numpy.uint32).tobytes()), made)

    def _rank(self, left: int, right: int) -> int:
        pair = left << 32 | right
        place = bisect_left(self._pairs, pair)
        return self._ranks[place] if place < len(self._pairs) and self._pairs[place] == pair else _NEVER

    def merged(self, ids: list[int]) -> list[int]:
        """The tokens of a word, from those of its characters; ``ids`` is used up."""
        ranks = [self._rank(left, right) for left, right in pairwise(ids)]
        while ranks and (rank := min(ranks)) != _NEVER:
            place = ranks.index(rank)
            ids[place : place + 2] = [self._made[rank]]
            del ranks[place]
            if place:
                ranks[place - 1] = self._rank(ids[place - 1], ids[place])
            if place < len(ranks):
                ranks[place] = self._rank(ids[place], ids[place + 1])
        return ids


class LeanTokenizer(Tokenizer):
    """Answers as the whole tokenizer does, which it makes again for what it cannot answer: texts with added tokens in them, characters
    that the vocabulary lacks, and tokens to be put around a text."""

    def __init__(
        self, whole: Tokenizer, library: tokenizers.Tokenizer, words: Words, merges: Merges, make: Callable[[], Tokenizer]
    ) -> None:
        self._words, self._merges, self._make = words, merges, make
        self._normalizer, self._splitter, self._decoder = library.normalizer, library.pre_tokenizer, library.decoder
        self._at_once: bool = library.model.ignore_merges
        self._special = whole.special_ids()
        self._named = whole.special_tokens()
        self._ends = whole.bos_token_id, whole.eos_token_id
        self._template = whole.chat_template()
        self._empty = whole.token_id("")
        self._known: dict[str, list[int]] = {}
        added = library.get_added_tokens_decoder()
        self._added = frozenset(added)
        texts = {token.content: token.special for token in added.values()}
        self._any = self._search(texts)
        self._ordinary = self._search(text for text, special in texts.items() if not special)

    @classmethod
    def of(cls, whole: Tokenizer, library: tokenizers.Tokenizer, make: Callable[[], Tokenizer]) -> LeanTokenizer | None:
        """None where the tokenizer is of another kind. ``make`` makes the whole one again."""
        from tokenizers.models import BPE

        model = library.model
        if not isinstance(model, BPE) or len(library.get_added_tokens_decoder()) > _MOST_ADDED:
            return None
        if model.dropout is not None or model.continuing_subword_prefix or model.end_of_word_suffix:
            return None
        state = msgspec.json.decode(model.__getstate__(), type=_Model)
        if len(set(state.vocab.values())) < len(state.vocab):
            return None
        added = library.get_added_tokens_decoder()
        texts = [""] * (max(*state.vocab.values(), *added, -1) + 1)
        for text, number in state.vocab.items():
            texts[number] = text
        for number, token in added.items():
            texts[number] = token.content
        merges = Merges.of(state)
        del state
        return None if merges is None else cls(whole, library, Words(texts), merges, make)

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        ids = None if add_special_tokens else self._encode(text, allow_special)
        if ids is None:
            return self._whole.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        left_out = self._special if skip_special_tokens else frozenset[int]()
        texts = [text for token in token_ids if token not in left_out and (text := self._words.text(token))]
        return str(self._decoder.decode(texts)) if self._decoder is not None else " ".join(texts)

    def token_text(self, token_id: int) -> str:
        return self._words.text(token_id)

    def size(self) -> int:
        return len(self._words)

    def special_ids(self) -> frozenset[int]:
        return self._special

    def token_id(self, text: str) -> int | None:
        return self._words.number(text) if text else self._empty

    @property
    def eos_token_id(self) -> int | None:
        return self._ends[1]

    @property
    def bos_token_id(self) -> int | None:
        return self._ends[0]

    def chat_template(self) -> str | dict[str, str] | None:
        return self._template

    def special_tokens(self) -> dict[str, str]:
        return dict(self._named)

    @cached_property
    def _whole(self) -> Tokenizer:
        return self._make()

    def _search(self, texts: Iterable[str]) -> re.Pattern[str]:
        """Finds any of the texts, as it is written and as it reads when it is normalized."""
        ways = {way for text in texts for way in (text, self._normalized(text)) if way}
        return re.compile("|".join(map(re.escape, sorted(ways))) if ways else r"(?!)")

    def _normalized(self, text: str) -> str:
        return text if self._normalizer is None else str(self._normalizer.normalize_str(text))

    def _encode(self, text: str, allow_special: bool) -> list[int] | None:
        """The tokens of a text without added tokens; None where the whole tokenizer has to say."""
        normalized = self._normalized(text)
        added = self._any if allow_special else self._ordinary
        if added.search(text) or added.search(normalized):
            return None
        splits: list[Any] = [(normalized, None)] if self._splitter is None else self._splitter.pre_tokenize_str(normalized)
        ids: list[int] = []
        for word, _ in splits:
            known = self._known.get(word) or self._merged(word)
            if known is None:
                return None
            ids += known
        return ids

    def _merged(self, word: str) -> list[int] | None:
        if self._at_once and (whole := self._number(word)) is not None:
            return [whole]
        letters = [number for letter in word if (number := self._number(letter)) is not None]
        if len(letters) < len(word):
            return None
        found = self._merges.merged(letters)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[word] = found
        return found

    def _number(self, text: str) -> int | None:
        """The number of one of the model's own texts; one that was added may stand in the file's vocabulary also, so it does not count."""
        number = self._words.number(text)
        return None if number in self._added else number
