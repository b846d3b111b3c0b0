"""Tries a case on a backend, byte by byte, and says what the backend does about it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from engine.plugin import Guide, GuideCompiler, GuideSpec, Tokenizer, UnsupportedConstraint
from engine.plugin.vocabulary import byte_characters
from tools.guided.cases import Case

END = 256


class Outcome(StrEnum):
    """ENFORCED: takes what is good, refuses what is bad. NARROWER: refuses what is bad, and some of what is good. REFUSED: the backend
    says that it cannot. VIOLATED: takes something bad, which must not be."""

    ENFORCED = "enforced"
    NARROWER = "narrower"
    REFUSED = "refused"
    VIOLATED = "violated"


class ByteTokenizer(Tokenizer):
    """One token per byte, and an end."""

    def __init__(self) -> None:
        self._texts = {byte: character for character, byte in byte_characters().items()}

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(token for token in token_ids if token < END).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        return self._texts.get(token_id, "")

    def size(self) -> int:
        return END + 1

    def special_ids(self) -> frozenset[int]:
        return frozenset((END,))

    def token_id(self, text: str) -> int | None:
        return next((i for i, known in self._texts.items() if known == text), None)

    @property
    def eos_token_id(self) -> int | None:
        return END

    @property
    def bos_token_id(self) -> int | None:
        return None

    def chat_template(self) -> str | dict[str, str] | None:
        return None


def accepts(guide: Guide, text: str) -> bool:
    """Whether a text is a whole sentence: its bytes follow each other, and the end may come after them."""
    matcher = guide.start()
    if not all(matcher.advance([byte]) for byte in text.encode()):
        return False
    mask: Any = np.zeros(9, np.int32)
    matcher.fill(mask)
    return bool(mask[END >> 5] >> (END & 31) & 1)


def probe(compiler: GuideCompiler, case: Case) -> tuple[Outcome, str]:
    """The outcome, and what showed it."""
    spec = GuideSpec(case.kind, case.value)
    lacks = compiler.unsupported(spec)
    if lacks is not None:
        return Outcome.REFUSED, lacks
    try:
        guide = compiler.compile(spec)
    except UnsupportedConstraint as error:
        return Outcome.REFUSED, str(error)
    except ValueError as error:
        return Outcome.REFUSED, f"as wrong: {error}"
    taken = [text for text in case.bad if accepts(guide, text)]
    if taken:
        return Outcome.VIOLATED, taken[0]
    missed = [text for text in case.good if not accepts(guide, text)]
    return (Outcome.NARROWER, missed[0]) if missed else (Outcome.ENFORCED, "")
