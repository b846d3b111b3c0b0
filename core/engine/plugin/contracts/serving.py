"""Contracts around a running engine: tasks, KV connectors, model implementations, extensions' records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.plugin.facts import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.model import Model, ModelContext


class ModelArchitecture(ABC):
    """One architecture (kind ``model``): reads its own config keys, and builds the network. ``describe`` is torch-free."""

    @abstractmethod
    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Sizes and capabilities; raises :class:`engine.errors.ModelFileError` naming the key, its value and what would work."""

    @abstractmethod
    def build(self, context: ModelContext) -> Model:
        """The network of one worker; torch may be imported from here on."""


class ModelImplementation(ABC):
    """A provider of architectures (kind ``model_impl``): the native ones, or transformers' classes on the paged cache."""

    @abstractmethod
    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        """For a model config: an architecture of the provider's own, or the name of a registered ``model`` plugin.

        ``native`` maps the registered architecture names to their distributions.
        Raises :class:`engine.errors.ModelFileError` for an architecture that it cannot provide.
        """


class Task(ABC):
    """What an instance serves (kind ``task``)."""

    @abstractmethod
    def endpoints(self) -> frozenset[str]:
        """Of: completions, chat, embeddings, pooling, score, rerank, classify, transcriptions."""

    def pooling(self) -> bool:
        """Whether requests are pooled instead of continued."""
        return False


class KVConnector(ABC):
    """Moves KV pages between instances. The scheduler half is asked for matches, the worker half moves pages."""

    @abstractmethod
    def matched(self, token_ids: Sequence[int], computed: int) -> int:
        """How many tokens after ``computed`` can be fetched instead of computed."""

    @abstractmethod
    def load(self, data: bytes, caches: Sequence[Tensor]) -> None:
        """Worker: fill pages as the step's ``connector`` data says, before the forward pass."""

    @abstractmethod
    def save(self, data: bytes, caches: Sequence[Tensor]) -> None:
        """Worker: store pages after the forward pass."""


class RequestRecord(msgspec.Struct, frozen=True):
    """A finished request, as observers see it. Times are seconds; ``ttft`` from arrival to the first token.

    ``key``: the name of the caller's API key (``key1`` for the server's first; never the key), empty where the server has no keys.
    """

    id: str
    model: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    finish_reason: str
    queue_time: float
    ttft: float
    e2e: float
    endpoint: str = ""
    key: str = ""
