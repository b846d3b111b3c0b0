"""Contracts around the sampler: guided decoding, logits processors, speculation, acceptance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.plugin.request import GuideSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Matcher(ABC):
    """One sequence's state in a grammar. Lives beside the sampler; never shared, used by one thread at a time.

    The end of the output is the vocabulary's ``end`` token: allowed exactly where the text so far is a whole sentence of the language.
    It is never passed to :meth:`advance`.
    """

    @abstractmethod
    def fill(self, mask: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Write the allowed next tokens: int32 words of 32 bits, bit i of word w = token 32·w+i, 1 = allowed.

        The mask arrives zeroed.
        """

    @abstractmethod
    def advance(self, token_ids: Sequence[int]) -> bool:
        """Accept tokens; False (state unchanged) where one leaves the language."""

    @abstractmethod
    def rollback(self, count: int) -> None:
        """Undo the last ``count`` tokens (rejected drafts)."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether the language allows nothing but the end."""

    @classmethod
    def step(
        cls, matchers: Sequence[Matcher], token_ids: Sequence[int], masks: np.ndarray[Any, np.dtype[np.int32]], rows: Sequence[int]
    ) -> Sequence[int] | None:
        """:meth:`advance` each of several matchers of this class by one token and :meth:`fill` its row of masks [R, words], in few
        calls of the library. The places in ``matchers`` of those that did not take their token; what their masks hold means nothing.
        None: the engine does it one by one.

        Where it raises, the matchers are thrown away and each is made anew.
        """
        return None

    @classmethod
    def stepper(cls, matchers: Sequence[Matcher], masks: np.ndarray[Any, np.dtype[np.int32]]) -> Stepper | None:
        """What a device needs to do on its own threads what :meth:`step` does; row i of ``masks`` [R, words] is that of ``matchers[i]``,
        of whatever class they are. None: this backend cannot do that, or not for these."""
        return None

    def forced(self) -> Sequence[int]:
        """Tokens that are likely to follow because the text is forced (jump-forward); empty where there is a choice.

        They are proposed as drafts, so a token that the grammar or the sampler does not take costs nothing but its computation.
        """
        return ()


class Stepper(ABC):
    """Matchers that go on by a token each, as calls of C functions ``int f(void *object, void *arguments, int32_t count, void *result)``
    that return 0 where they worked. They run on any threads and know no Python; matchers are stepped at the same time.

    ``calls`` [R, C, 5] uint64: function, object, arguments, count, result of each. Those of a row come in order and end with its mask
    written. ``kept`` [R] uint64: addresses of masks, of which alone the row's mask keeps something; 0: it stays as it is. What they point
    to lives as long as the stepper. ``apart``: tokens that it cannot be given, :meth:`Matcher.advance` knows what to say of them.
    """

    calls: np.ndarray[Any, np.dtype[np.uint64]]
    kept: np.ndarray[Any, np.dtype[np.uint64]]
    apart: frozenset[int] = frozenset()

    @abstractmethod
    def stage(self, token_ids: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Prepare the calls for the next token of each."""

    @abstractmethod
    def refused(self) -> Sequence[int]:
        """After the calls: the places of those that did not take their token, of those whose calls all worked."""


class UnsupportedConstraint(ValueError):
    """The backend finds while compiling that it lacks a feature; ``str`` names it. Another backend is asked then."""


class Guide(ABC):
    """A compiled constraint, shared by requests."""

    @abstractmethod
    def start(self) -> Matcher:
        """A fresh matcher."""

    @abstractmethod
    def nbytes(self) -> int:
        """Estimated memory, for the cache's bound."""


class GuideCompiler(ABC):
    """A guided-decoding backend.

    Every constraint is compiled twice: first in a process that is killed when it takes too long or too much memory, which decides
    whether the request is served; then on a thread of the worker. ``compile`` must not start threads.
    """

    @abstractmethod
    def unsupported(self, spec: GuideSpec) -> str | None:
        """None, or the feature of the constraint that this backend does not enforce."""

    @abstractmethod
    def compile(self, spec: GuideSpec) -> Guide:
        """Raises ``ValueError`` with the reason for a constraint that is wrong in itself, :class:`UnsupportedConstraint` for what
        :meth:`unsupported` could not see."""


class LogitsProcessor(ABC):
    """A named processor that requests enable. One instance serves all sequences."""

    @abstractmethod
    def validate(self, arguments: dict[str, Any]) -> str | None:
        """None, or what is wrong with a request's arguments."""

    def begin(self, arguments: dict[str, Any]) -> LogitsProcessor:
        """The processor of one sequence, whose :meth:`apply` is called for it alone: a fresh one where it keeps a state."""
        return self

    @abstractmethod
    def apply(self, logits: Tensor, prompt: Sequence[int], output: Sequence[int], arguments: dict[str, Any]) -> Tensor:
        """One row of logits [vocab] float32 → the same shape; may work in place."""


class Draft(msgspec.Struct, frozen=True):
    """Proposed tokens of one sequence; ``probabilities`` raw float32 [len, vocab] or None (each counts as probability 1)."""

    seq: int
    token_ids: list[int]
    probabilities: bytes | None = None


class Proposer(ABC):
    """Proposes draft tokens after a step; lives in the worker."""

    @abstractmethod
    def propose(self, sequences: Sequence[tuple[int, Sequence[int]]], count: int) -> list[Draft]:
        """For (seq, all tokens so far): up to ``count`` draft tokens each."""

    def forget(self, seqs: Sequence[int]) -> None:
        """Those sequences ended."""


class AcceptanceMethod(ABC):
    """Verifies drafts."""

    @abstractmethod
    def accept(self, target: Tensor, draft: Sequence[int], draft_probabilities: Tensor | None, uniforms: Sequence[float]) -> list[int]:
        """Target probabilities [len(draft)+1, vocab] → the accepted tokens and the one after them.

        ``uniforms``: 2·len(draft)+1 numbers in [0, 1).
        """
