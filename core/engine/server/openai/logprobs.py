"""Log-probabilities in the shapes of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.assemble.tokens import TokenTexts
from engine.plugin.step import TokenLogprobs

#: JSON has no minus infinity.
LOWEST = -9999.0


class LogprobFormat:
    """Formats for one request. ``as_ids``: tokens are shown as ``token_id:N``."""

    def __init__(self, texts: TokenTexts, *, as_ids: bool = False) -> None:
        self._texts = texts
        self._as_ids = as_ids

    def completion(self, entries: Sequence[TokenLogprobs | None], ids: Sequence[int], top: int, offset: int) -> dict[str, Any]:
        """Legacy lists; an entry None (the first prompt token) is null. ``offset``: characters before the first token.

        The best alternative is the very number shown for the token where the token is the best: readers compare them for equality.
        """
        tokens: list[str] = []
        offsets: list[int] = []
        chosen: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        for entry, token in zip(entries, ids, strict=True):
            text = self._text(token)
            tokens.append(text)
            offsets.append(offset)
            offset += len(text)
            chosen.append(None if entry is None else _finite(_own(entry)))
            tops.append(None if entry is None else self._named(entry, top))
        return {"text_offset": offsets, "token_logprobs": chosen, "tokens": tokens, "top_logprobs": tops}

    def chat(self, entries: Sequence[TokenLogprobs], top: int) -> dict[str, Any]:
        """``logprobs`` of a chat choice."""
        content = []
        for entry in entries:
            shown = self._shown(entry.token_id, _own(entry))
            alternatives = zip(entry.top_ids[:top], entry.top_logprobs[:top], strict=True)
            content.append({**shown, "top_logprobs": [self._shown(token, value) for token, value in alternatives]})
        return {"content": content}

    def prompt(self, entries: Sequence[TokenLogprobs], count: int) -> list[dict[str, Any] | None]:
        """``prompt_logprobs``: one entry per prompt token, null for the first."""
        return [None, *(self._ranked(entry, count) for entry in entries)]

    def _named(self, entry: TokenLogprobs, top: int) -> dict[str, float]:
        named: dict[str, float] = {}
        for token, value in zip(entry.top_ids[:top], entry.top_logprobs[:top], strict=True):
            named.setdefault(self._text(token), _finite(value))
        named.setdefault(self._text(entry.token_id), _finite(_own(entry)))
        return named

    def _ranked(self, entry: TokenLogprobs, count: int) -> dict[str, Any]:
        ranked = {
            str(token): {"logprob": _finite(value), "rank": rank, "decoded_token": self._text(token)}
            for rank, (token, value) in enumerate(zip(entry.top_ids[:count], entry.top_logprobs[:count], strict=True), 1)
        }
        ranked.setdefault(
            str(entry.token_id),
            {"logprob": _finite(_own(entry)), "rank": entry.rank, "decoded_token": self._text(entry.token_id)},
        )
        return ranked

    def _shown(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self._text(token), "logprob": _finite(value), "bytes": self._texts.bytes(token)}

    def _text(self, token: int) -> str:
        return self._texts.text(token, as_id=self._as_ids)


def _own(entry: TokenLogprobs) -> float:
    """The token's number as it stands among the alternatives, where it does."""
    if entry.token_id in entry.top_ids:
        return entry.top_logprobs[entry.top_ids.index(entry.token_id)]
    return entry.logprob


def _finite(value: float) -> float:
    return value if value > LOWEST else LOWEST
