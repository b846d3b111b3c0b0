"""From a request's sampling fields to verified :class:`SamplingParams`; every refusal names the field and the allowed range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import RequestError
from engine.plugin.request import SamplingParams

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.plugin.contracts.text import Tokenizer

INT64 = 2**63
MAX_STOPS = 1024
MAX_STOP_LENGTH = 4096
MAX_BIASES = 16384
MAX_BAD_WORDS = 1024
#: A temperature between 0 and this one is raised to it: smaller ones overflow the softmax.
SMALLEST_TEMPERATURE = 0.01
FALLBACK: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds every request of a server. ``defaults`` are those of the generation config; ``logits_size`` bounds token ids."""

    logits_size: int
    max_model_len: int
    max_logprobs: int = 20
    max_num_seqs: int = 256
    max_new_tokens: int | None = None
    defaults: dict[str, Any] = {}

    @classmethod
    def of(cls, config: EngineConfig) -> Limits:
        """The limits of a resolved configuration."""
        info = config.model.info
        return cls(
            logits_size=info.logits_size or info.vocab_size,
            max_model_len=config.model.max_model_len,
            max_logprobs=config.server.max_logprobs,
            max_num_seqs=config.scheduler.max_num_seqs,
            max_new_tokens=config.server.max_new_tokens,
            defaults=dict(config.server.default_sampling),
        )


class SamplingFields(msgspec.Struct, kw_only=True):
    """The sampling fields that completions and chat share, as the request gave them (None: not given)."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    n: int | None = None
    best_of: int | None = None
    seed: int | None = None
    stop: str | list[str | None] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None


def build_params(fields: SamplingFields, limits: Limits, *, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
    """Verified params: the request's values, else the generation config's, else the usual ones.

    ``max_tokens`` None means until the context is full; :func:`fit_context` makes it a number. Raises RequestError.
    """
    chosen = {name: _first(getattr(fields, name), limits.defaults.get(name), value) for name, value in FALLBACK.items()}
    if isinstance(chosen["temperature"], float) and 0.0 < chosen["temperature"] < SMALLEST_TEMPERATURE:
        chosen["temperature"] = SMALLEST_TEMPERATURE
    params = SamplingParams(
        **chosen,
        n=_first(fields.n, 1),
        best_of=fields.best_of,
        presence_penalty=_first(fields.presence_penalty, 0.0),
        frequency_penalty=_first(fields.frequency_penalty, 0.0),
        seed=fields.seed,
        stop=_stops(fields.stop),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        bad_words=tuple(fields.bad_words or ()),
        include_stop_str_in_output=bool(fields.include_stop_str_in_output),
        ignore_eos=bool(fields.ignore_eos),
        max_tokens=max_tokens,
        min_tokens=_first(fields.min_tokens, 0),
        logprobs=logprobs,
        prompt_logprobs=fields.prompt_logprobs,
        logit_bias=_biases(fields.logit_bias or {}),
        allowed_token_ids=None if fields.allowed_token_ids is None else tuple(fields.allowed_token_ids),
        skip_special_tokens=_first(fields.skip_special_tokens, True),
        spaces_between_special_tokens=_first(fields.spaces_between_special_tokens, True),
        truncate_prompt_tokens=fields.truncate_prompt_tokens,
    )
    verify(params, limits)
    return params


def verify(params: SamplingParams, limits: Limits) -> None:
    """Raise RequestError for the first value that cannot be served; the prompt is not looked at."""
    _verify_numbers(params)
    _verify_counts(params, limits)
    _verify_texts(params)
    check_token_ids("stop_token_ids", params.stop_token_ids, limits)
    if params.allowed_token_ids is not None:
        if not params.allowed_token_ids:
            raise _refused("allowed_token_ids", "[]", "at least one token id")
        check_token_ids("allowed_token_ids", params.allowed_token_ids, limits)
    if len(params.logit_bias) > MAX_BIASES:
        raise _refused("logit_bias", f"{len(params.logit_bias)} entries", f"at most {MAX_BIASES}")
    check_token_ids("logit_bias", tuple(params.logit_bias), limits)
    for token, bias in params.logit_bias.items():
        _number("logit_bias", bias, -100.0, 100.0, of=f" of token {token}")


def fit_context(params: SamplingParams, prompt_tokens: int, limits: Limits, *, param: str) -> SamplingParams:
    """``max_tokens`` as a number that fits: an explicit one that does not fit is refused, a default is clipped.

    ``param`` is the field that the prompt came in.
    """
    room = limits.max_model_len - prompt_tokens
    asked = params.max_tokens
    if room < 1 or (asked is not None and asked > room):
        raise too_long(prompt_tokens, asked, limits.max_model_len, param)
    wanted = room if asked is None else asked
    if limits.max_new_tokens is not None:
        wanted = min(wanted, limits.max_new_tokens)
    return msgspec.structs.replace(params, max_tokens=wanted, min_tokens=min(params.min_tokens, wanted))


def too_long(prompt_tokens: int, completion: int | None, max_model_len: int, param: str, *, at_least: bool = False) -> RequestError:
    """The refusal of an over-long request, in the wording that clients recognise."""
    some = "at least " if at_least else ""
    total = prompt_tokens + (completion or 0)
    asked = f" ({some}{prompt_tokens} in the {param}, {completion} in the completion)" if completion else f" in the {param}"
    cause = (
        f"This model's maximum context length is {max_model_len} tokens. However, you requested {some}{total} tokens{asked}. "
        f"Please reduce the length of the {param} or completion."
    )
    return RequestError(cause, param=param, code="context_length_exceeded")


def fill_bad_words(params: SamplingParams, tokenizer: Tokenizer | None, limits: Limits) -> SamplingParams:
    """``bad_words`` as token ids, each at the start of a word and inside a text. ``tokenizer`` None: whatever needs text is refused."""
    if tokenizer is None:
        for param, value in (("stop", params.stop), ("bad_words", params.bad_words), ("guided decoding", params.guide)):
            if value:
                fix = {"stop": "stop_token_ids", "bad_words": "logit_bias"}.get(param)
                raise RequestError(f"{param} needs text, but this server runs without a tokenizer (--skip-tokenizer-init).",
                                   param=param.replace("guided decoding", "response_format"), fix=fix)  # fmt: skip
        return params
    if not params.bad_words:
        return params
    found: dict[tuple[int, ...], None] = {}
    for word in params.bad_words:
        for text in (word, " " + word.lstrip()):
            ids = tuple(tokenizer.encode(text, add_special_tokens=False, allow_special=False))
            if ids:
                check_token_ids("bad_words", ids, limits)
                found[ids] = None
    return msgspec.structs.replace(params, bad_words_ids=tuple(found))


def choice_seed(seed: int, index: int) -> int:
    """The seed of one choice: the request's plus its index, within int64."""
    return (seed + index + INT64) % (2 * INT64) - INT64


def check_token_ids(param: str, ids: Sequence[int], limits: Limits) -> None:
    """Refuse ids that the model's logits do not have."""
    if not ids:
        return
    if min(ids) < 0 or max(ids) >= limits.logits_size:
        bad = next(token for token in ids if not 0 <= token < limits.logits_size)
        raise _refused(param, f"token id {bad}", f"0 … {limits.logits_size - 1}")


def _verify_numbers(params: SamplingParams) -> None:
    _number("temperature", params.temperature, 0.0, math.inf)
    _number("top_p", params.top_p, 0.0, 1.0, open_low=True)
    _number("min_p", params.min_p, 0.0, 1.0)
    _number("presence_penalty", params.presence_penalty, -2.0, 2.0)
    _number("frequency_penalty", params.frequency_penalty, -2.0, 2.0)
    _number("repetition_penalty", params.repetition_penalty, 0.0, 2.0, open_low=True)
    if params.top_k < -1 or params.top_k >= INT64:
        raise _refused("top_k", params.top_k, "-1 or 0 (all tokens), or at least 1")
    if params.seed is not None and not -INT64 <= params.seed < INT64:
        raise _refused("seed", params.seed, "a signed 64-bit integer")


def _verify_counts(params: SamplingParams, limits: Limits) -> None:
    _count("n", params.n, 1, limits.max_num_seqs, "--max-num-seqs")
    if params.best_of is not None:
        _count("best_of", params.best_of, params.n, limits.max_num_seqs, "--max-num-seqs")
    if params.temperature == 0.0 and max(params.n, params.best_of or 1) > 1:
        name = "n" if params.n > 1 else "best_of"
        raise _refused(name, max(params.n, params.best_of or 1), "1 with temperature 0 (every choice would be the same)")
    if params.max_tokens is not None:
        _count("max_tokens", params.max_tokens, 1, INT64 - 1)
    _count("min_tokens", params.min_tokens, 0, INT64 - 1)
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise _refused("min_tokens", params.min_tokens, f"at most max_tokens ({params.max_tokens})")
    for name in ("logprobs", "prompt_logprobs"):
        value = getattr(params, name)
        if value is not None:
            _count(name, value, 0, limits.max_logprobs, "--max-logprobs")
    if params.truncate_prompt_tokens is not None:
        _count("truncate_prompt_tokens", params.truncate_prompt_tokens, 1, limits.max_model_len, "--max-model-len")


def _verify_texts(params: SamplingParams) -> None:
    for name, texts, cap in (("stop", params.stop, MAX_STOPS), ("bad_words", params.bad_words, MAX_BAD_WORDS)):
        if len(texts) > cap:
            raise _refused(name, f"{len(texts)} strings", f"at most {cap}")
        for text in texts:
            if not text:
                raise _refused(name, "an empty string", f"strings of 1 to {MAX_STOP_LENGTH} characters")
            if len(text) > MAX_STOP_LENGTH:
                raise _refused(name, f"a string of {len(text)} characters", f"strings of 1 to {MAX_STOP_LENGTH} characters")


def _stops(value: str | list[str | None] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(text for text in value if text is not None)


def _biases(value: Mapping[str, float]) -> dict[int, float]:
    if len(value) > MAX_BIASES:
        raise _refused("logit_bias", f"{len(value)} entries", f"at most {MAX_BIASES}")
    found: dict[int, float] = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 19):
            raise _refused("logit_bias", f"the key {key[:40]!r}", "token ids as keys")
        found[int(key)] = bias
    return found


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _number(name: str, value: float, low: float, high: float, *, open_low: bool = False, of: str = "") -> None:
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not inside:
        upper = "at least 0 and finite" if high == math.inf else f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        raise _refused(name, f"{value}{of}", upper)


def _count(name: str, value: int, low: int, high: int, flag: str | None = None) -> None:
    if not low <= value <= high:
        upper = "a 64-bit integer" if high == INT64 - 1 else f"at most {high}" + (f" ({flag})" if flag else "")
        raise _refused(name, value, f"at least {low} and {upper}")


def _refused(name: str, value: object, allowed: str) -> RequestError:
    return RequestError(f"{name} cannot be {value}; allowed: {allowed}.", param=name)
