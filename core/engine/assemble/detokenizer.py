"""Token ids to text, piece by piece, never showing half a character."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin.contracts.text import Tokenizer

#: What decoders put where bytes are not (yet) a character.
BROKEN = "\ufffd"
#: An unfinished character shows as at most this many of them (one per byte of it in byte-fallback decoders).
MOST_HELD = 3
#: Tokens of context that stay before the new ones, and the length of the window at which the rest is dropped.
CONTEXT = 6
WINDOW = 24


class Detokenizer:
    """The text of one growing token sequence.

    It decodes a short window of recent tokens and gives out what is new in it, so a token costs the same however long the sequence is.
    A trailing unfinished character is held back until it is complete or the sequence ends.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, *, skip_special_tokens: bool = True, context: Sequence[int] = (),
        shown: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """``tokenizer`` None: there is no text, every piece is empty. ``context``: the tokens before the first one (the prompt);
        its end is read along, since decoders drop the space before a text's first word. ``shown``: special tokens not to skip."""
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids() - shown if tokenizer is not None and skip_special_tokens else frozenset()
        self._size = tokenizer.size() if tokenizer is not None else 0
        self._window: list[int] = []
        self._given = ""
        self._limit = WINDOW
        self._read_context(context)

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that becomes certain with these tokens; may be empty."""
        if self._tokenizer is None:
            return ""
        return "".join(self._push(token) for token in token_ids if 0 <= token < self._size and token not in self._skipped)

    def finish(self) -> str:
        """What was held back, as the decoder shows it; call once, at the end."""
        if self._tokenizer is None or not self._window:
            return ""
        text = self._decode(self._window)
        return text[len(self._given) :] if text.startswith(self._given) else ""

    def _read_context(self, context: Sequence[int]) -> None:
        tail = [token for token in context[-CONTEXT:] if 0 <= token < self._size and token not in self._skipped]
        if self._tokenizer is not None and tail:
            self._window = tail
            text = self._decode(tail)
            self._given = text[: len(text) - _held(text)]

    def _push(self, token: int) -> str:
        text = self._read(token)
        held = _held(text)
        sure = text[: len(text) - held]
        fresh = sure[len(self._given) :]
        if fresh:
            self._given = sure
        if len(self._window) > self._limit:
            self._forget(text, held)
        return fresh

    def _read(self, token: int) -> str:
        """The window's text with the new token; starts with what was given out."""
        window = [*self._window, token]
        text = self._decode(window)
        if not text.startswith(self._given):
            # A byte that belongs to no character made the decoder give up on the whole run of bytes before it: characters already
            # given out stay, and what follows them is read alone.
            done = self._shown_tokens()
            window = window[done:]
            self._given = ""
            text = self._decode(window)
        self._window = window
        return text

    def _shown_tokens(self) -> int:
        """How many of the window's tokens are given out completely."""
        for count in range(len(self._window), 0, -1):
            if len(self._decode(self._window[:count])) <= len(self._given):
                return count
        return 0

    def _forget(self, text: str, held: int) -> None:
        """Shorten the window, at a token where the rest reads the same alone."""
        last = len(self._window) - CONTEXT
        for start in range(last, max(last - CONTEXT, 0), -1):
            rest = self._decode(self._window[start:])
            if len(rest) > held and text.endswith(rest):
                self._window = self._window[start:]
                self._given = rest[: len(rest) - held]
                self._limit = WINDOW
                return
        self._limit *= 2

    def _decode(self, token_ids: list[int]) -> str:
        tokenizer = self._tokenizer
        return tokenizer.decode(token_ids, skip_special_tokens=False) if tokenizer is not None else ""


def _held(text: str) -> int:
    """How many characters at the end may still change."""
    held = 0
    while held < min(MOST_HELD, len(text)) and text[-1 - held] == BROKEN:
        held += 1
    return held
