"""What a user asks for: sampling parameters and the request that travels to the engine."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class GuideSpec(msgspec.Struct, frozen=True):
    """One output constraint. ``kind``: json, json_object, regex, choice, grammar, structural_tag; ``value`` as the request gave it.

    ``options``: ``whitespace_pattern`` (a regex) and ``any_whitespace`` (False: compact JSON); both say how JSON is laid out;
    ``markers``: texts in a structural tag's fixed parts that are to come as one token where the vocabulary has them as special tokens;
    ``thinks``: the constraint describes the thinking, too, and begins with the first token.
    ``start_after``: token ids after which the constraint begins (the end of thinking); empty: with the first token. A few line breaks
    may come between.
    ``opens``: the id that, where it comes first, makes the output think before the constraint begins; without it the constraint begins
    at once. Empty: the output certainly begins with thinking, where ``start_after`` says so.
    ``breaks``: its texts may begin with line breaks of their own, so that none come between.
    """

    kind: str
    value: Any = None
    backend: str | None = None
    options: dict[str, Any] = {}
    start_after: tuple[int, ...] = ()
    opens: tuple[int, ...] = ()
    breaks: bool = False


class ThinkingLimit(msgspec.Struct, frozen=True):
    """After ``budget`` tokens of thinking the tokens ``forced`` come. The thinking is ``open`` from the first token on, or begins after
    ``start``; it ends with ``end``."""

    budget: int
    open: bool
    start: tuple[int, ...]
    end: tuple[int, ...]
    forced: tuple[int, ...]


class MultimodalItem(msgspec.Struct, frozen=True):
    """One image, sound or video, preprocessed: raw arrays by name, and the prompt positions [start, start+length) it fills.

    ``digest`` identifies the content; it is part of the prefix-cache key of every block that it touches.
    """

    modality: str
    digest: str
    start: int
    length: int
    arrays: dict[str, tuple[str, tuple[int, ...], bytes]]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose tokens and when to stop; names and defaults are the field's.

    temperature 0 is greedy. top_k -1 or 0: all. logprobs/prompt_logprobs: number of alternatives (0: the chosen token only, None: none).
    logit_bias: token id → added to its logit. max_tokens None: until the context is full. seed: any int64.
    ``stop_token_ids`` end the output like EOS (not counted as text); ``ignore_eos`` ignores EOS only.
    ``bad_words`` are texts; the front end fills ``bad_words_ids`` from them. Validated by :func:`engine.render.params.verify`.
    """

    n: int = 1
    best_of: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] = {}
    allowed_token_ids: tuple[int, ...] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    guide: GuideSpec | None = None
    thinking: ThinkingLimit | None = None
    logits_processors: tuple[tuple[str, dict[str, Any]], ...] = ()


class PoolingParams(msgspec.Struct, frozen=True):
    """What a pooling request wants back: the task (embed, classify, score, reward) and output options."""

    task: str = "embed"
    dimensions: int | None = None
    normalize: bool | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to continue (or to pool). n > 1 becomes n requests with one ``group`` in the front end.

    ``id`` is unique in the server's life, never the client's. ``params.max_tokens`` is always set here, ``params.seed`` too.
    ``eos_token_ids`` end the output unless ``params.ignore_eos``. ``arrival`` is monotonic seconds.
    ``delivered`` is the number of trailing prompt ids that are output already delivered (a request continued after a restart).
    ``cache_salt`` keeps prefix-cache entries of different tenants apart.
    """

    id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    arrival: float
    eos_token_ids: tuple[int, ...] = ()
    priority: int = 0
    group: str | None = None
    adapter: str | None = None
    cache_salt: str | None = None
    multimodal: tuple[MultimodalItem, ...] = ()
    pooling: PoolingParams | None = None
    delivered: int = 0


class FinishReason(StrEnum):
    """Why a sequence ended. ``error`` carries its text in :class:`engine.messages.Output`."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"
