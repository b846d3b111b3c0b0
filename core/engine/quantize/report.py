"""What ``engine quantize`` says at the end: bytes, perplexity and errors, before and after."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.quantize.quality import Perplexity
from engine.quantize.writing import Written


class Report(msgspec.Struct, frozen=True):
    """Everything as numbers. ``rms`` and ``worst`` errors are relative to the weights: see :class:`Written`."""

    model: str
    method: str
    out: str
    settings: dict[str, Any]
    seconds: float
    bytes_before: int
    bytes_after: int
    quantized: int
    kept: tuple[str, ...]
    rms_error: float
    worst_error: float
    worst_layer: str
    tokens: int | None = None
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    warnings: tuple[str, ...] = ()

    def with_perplexity(self, before: Perplexity, after: Perplexity) -> Report:
        """Completed by what the two models made of the same text."""
        return msgspec.structs.replace(self, tokens=before.tokens, perplexity_before=before.value, perplexity_after=after.value)

    def with_note(self, note: str) -> Report:
        """With one more warning."""
        return msgspec.structs.replace(self, warnings=(*self.warnings, note))

    def data(self) -> dict[str, Any]:
        """As a JSON object."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def lines(self) -> list[str]:
        """As a table for people."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        rows = [("", "before", "after", "")]
        rows.append(("weights", _size(self.bytes_before), _size(self.bytes_after), f"{self.bytes_after / max(self.bytes_before, 1):.3f}"))
        if self.perplexity_before is not None and self.perplexity_after is not None:
            change = self.perplexity_after / self.perplexity_before - 1
            rows.append(("perplexity", f"{self.perplexity_before:.4f}", f"{self.perplexity_after:.4f}", f"{100 * change:+.2f} %"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        table = [f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip() for row in rows]
        kept = ", ".join(self.kept[:4]) + (f" and {len(self.kept) - 4} more" if len(self.kept) > 4 else "")
        error = f"{100 * self.rms_error:.2f} % in root mean square; largest {100 * self.worst_error:.1f} % of its layer's largest weight"
        return [
            f"{self.out}: {self.model} by {self.method} ({settings}), {self.seconds:.1f} s", *table,
            f"  error       {error} ({self.worst_layer})",
            f"  quantized   {self.quantized} matrices; kept as they are: {kept or 'none'}",
            *([f"  text        {self.tokens} tokens"] if self.tokens is not None else []),
            *(f"  note        {line}" for line in self.warnings),
        ]  # fmt: skip


def report_of(model: str, method: str, out: str, settings: dict[str, Any], seconds: float, done: Written, notes: list[str]) -> Report:
    """Of what was written, without perplexities."""
    return Report(
        model=model, method=method, out=out, settings=settings, seconds=round(seconds, 3), bytes_before=done.before,
        bytes_after=done.after, quantized=len(done.quantized), kept=tuple(done.kept), rms_error=done.rms(), worst_error=done.worst,
        worst_layer=done.worst_layer, warnings=tuple(notes),
    )  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1e9:.3f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
