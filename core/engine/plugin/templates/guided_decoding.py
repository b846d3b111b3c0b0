"""Constrains the output to one of several texts; a guided-decoding backend named example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import Guide, GuideCompiler, GuideSpec, Matcher, Tokenizer, Vocabulary, hookimpl

if TYPE_CHECKING:
    import numpy as np

ENGINE_API = 1


class ChoiceMatcher(Matcher):
    """What was written so far, one entry per token, so that tokens can be taken back."""

    def __init__(self, choices: Sequence[bytes], vocabulary: Vocabulary) -> None:
        self.choices, self.vocabulary = choices, vocabulary
        self.written = [b""]

    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        import numpy

        bits = numpy.unpackbits(mask.view(numpy.uint8), bitorder="little")
        for token, text in enumerate(self.vocabulary.tokens):
            bits[token] = bool(text) and self.fits(self.written[-1] + text)
        bits[self.vocabulary.end] = self.written[-1] in self.choices
        mask[:] = numpy.packbits(bits, bitorder="little").view(numpy.int32)

    def fits(self, text: bytes) -> bool:
        """Whether a choice begins so."""
        return any(choice.startswith(text) for choice in self.choices)

    def advance(self, token_ids: Sequence[int]) -> bool:
        before = len(self.written)
        for token in token_ids:
            text = self.vocabulary.tokens[token]
            if not text or not self.fits(self.written[-1] + text):
                del self.written[before:]
                return False
            self.written.append(self.written[-1] + text)
        return True

    def rollback(self, count: int) -> None:
        del self.written[len(self.written) - count :]

    def finished(self) -> bool:
        return self.written[-1] in self.choices and sum(choice.startswith(self.written[-1]) for choice in self.choices) == 1


class ChoiceGuide(Guide):
    """The texts, shared by requests."""

    def __init__(self, choices: Sequence[bytes], vocabulary: Vocabulary) -> None:
        self.choices, self.vocabulary = choices, vocabulary

    def start(self) -> Matcher:
        return ChoiceMatcher(self.choices, self.vocabulary)

    def nbytes(self) -> int:
        return sum(map(len, self.choices)) + 64


class ChoiceCompiler(GuideCompiler):
    """Compiles ``choice`` alone."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def unsupported(self, spec: GuideSpec) -> str | None:
        return None if spec.kind == "choice" else spec.kind

    def compile(self, spec: GuideSpec) -> Guide:
        if not spec.value:
            raise ValueError("there must be at least one choice")
        return ChoiceGuide([choice.encode() for choice in spec.value], self.vocabulary)


@hookimpl
def engine_create_guide(tokenizer: Tokenizer, vocab_size: int) -> GuideCompiler:
    return ChoiceCompiler(Vocabulary.of(tokenizer, vocab_size))
