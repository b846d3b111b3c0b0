"""When what happened to one sequence."""

from __future__ import annotations

from engine.messages import Output, Spent


class RequestTimes:
    """In monotonic seconds; 0 for what has not happened. ``spent``: the engine's own times, where it tells them."""

    def __init__(self, arrival: float) -> None:
        self.arrival = arrival
        self.started = 0.0
        self.first = 0.0
        self.last = 0.0
        self.ended = 0.0
        #: Seconds per token of the newest output; None where it brought the first token, or none.
        self.gap: float | None = None
        self.spent: Spent | None = None

    def see(self, output: Output, now: float) -> None:
        """Take notice of an output."""
        if output.started and not self.started:
            self.started = max(output.started, self.arrival)
        self.spent = output.spent or self.spent
        self.gap = None
        if output.token_ids:
            if self.first:
                self.gap = (now - self.last) / len(output.token_ids)
            else:
                self.first = now
            self.last = now

    def end(self, now: float) -> None:
        """The sequence is over, whatever the reason."""
        self.ended = now

    @property
    def whole(self) -> float:
        """Arrival to end, in seconds."""
        return self.ended - self.arrival

    def parts(self) -> tuple[float, float, float]:
        """Seconds of queue, prefill and decode, which add up to :attr:`whole`: what did not begin took no time, and the part at which
        the sequence ended lasted until then."""
        started = self.started or self.first or self.ended
        first = self.first or self.ended
        return started - self.arrival, first - started, self.ended - first
