"""Where every living sequence is: waiting, parked, running or swapped out."""

from __future__ import annotations

from collections.abc import Iterable

from engine.scheduler.delay import AdmissionDelay
from engine.scheduler.queues import Queue, Running
from engine.scheduler.sequence import Sequence, State


class Roster:
    """The only place that changes a sequence's state.

    Prompts longer than ``long_threshold`` tokens (None: no such distinction) wait in a queue of their own,
    so that they can be passed over without being looked at one by one.
    """

    def __init__(self, long_threshold: int | None, delay: AdmissionDelay) -> None:
        self.by_number: dict[int, Sequence] = {}
        self.by_id: dict[str, Sequence] = {}
        self.running = Running()
        self.swapped = Queue()
        self.delay = delay
        self._threshold = long_threshold
        self._short = Queue()
        self._long = Queue()
        self._parked = 0
        #: Tokens of those that could start, counted whole.
        self.backlog = 0

    @property
    def waiting(self) -> int:
        """Sequences that wait to be computed, parked ones included."""
        return len(self._short) + len(self._long) + self._parked

    @property
    def parked(self) -> int:
        """Sequences that wait for blocks which others compute."""
        return self._parked

    def ready(self, long_prompts: bool) -> int:
        """How many prompts could start now, long ones counted or not."""
        return len(self._short) + (len(self._long) if long_prompts else 0)

    def add(self, sequence: Sequence) -> None:
        """A new sequence."""
        self.by_number[sequence.number] = sequence
        self.by_id[sequence.request.id] = sequence
        self.wait(sequence)

    def wait(self, sequence: Sequence) -> None:
        """Into the waiting queue."""
        sequence.state = State.WAITING
        self.backlog += len(sequence.tokens)
        self._queue_of(sequence).push(sequence)
        self.delay.joined(sequence)

    def next(self, long_prompts: bool) -> Sequence | None:
        """The best of all that wait or are swapped out; long waiting prompts only if ``long_prompts``."""
        heads = [self.swapped.head(), self._short.head(), self._long.head() if long_prompts else None]
        return min((head for head in heads if head is not None), key=lambda s: (s.key, s.number), default=None)

    def run(self, sequence: Sequence) -> None:
        """From the head of its queue to the running ones."""
        self._leave(sequence)
        sequence.state = State.RUNNING
        self.running.add(sequence)

    def park(self, sequence: Sequence) -> None:
        """From the head of its queue aside, until :meth:`wake`."""
        self._leave(sequence)
        sequence.state = State.PARKED
        self._parked += 1

    def wake(self, sequences: Iterable[Sequence]) -> None:
        """What these parked sequences waited for has happened."""
        for sequence in sequences:
            if sequence.state is State.PARKED:
                self._parked -= 1
                self.wait(sequence)

    def preempt(self, sequence: Sequence, swapped: bool) -> None:
        """From the running ones to the swapped or the waiting ones."""
        self.running.remove(sequence)
        sequence.preemptions += 1
        if swapped:
            sequence.state = State.SWAPPED
            self.swapped.push(sequence)
        else:
            self.wait(sequence)

    def end(self, sequence: Sequence) -> None:
        """Forget it, wherever it is."""
        state, sequence.state = sequence.state, State.ENDED
        if state is State.RUNNING:
            self.running.remove(sequence)
        elif state is State.SWAPPED:
            self.swapped.note_ended()
        elif state is State.WAITING:
            self.backlog -= len(sequence.tokens)
            self._queue_of(sequence).note_ended()
            self.delay.left(sequence)
        elif state is State.PARKED:
            self._parked -= 1
        del self.by_number[sequence.number]
        del self.by_id[sequence.request.id]

    def check(self) -> None:
        """Raise ``RuntimeError`` where the queues do not hold exactly the living sequences, each once."""
        counted = len(self.running) + self.waiting + len(self.swapped)
        if counted != len(self.by_number) or len(self.by_id) != counted:
            raise RuntimeError(f"roster: {counted} sequences in the queues, {len(self.by_number)} alive")
        keys = [(sequence.key, sequence.number) for sequence in self.running]
        if keys != sorted(keys) or any(sequence.state is not State.RUNNING for sequence in self.running):
            raise RuntimeError("roster: the running sequences are out of order")
        if self.backlog != sum(len(sequence.tokens) for sequence in self.by_number.values() if sequence.state is State.WAITING):
            raise RuntimeError("roster: the tokens of those that wait are miscounted")

    def _leave(self, sequence: Sequence) -> None:
        if sequence.state is State.SWAPPED:
            self.swapped.take(sequence)
        else:
            self.backlog -= len(sequence.tokens)
            self._queue_of(sequence).take(sequence)
            self.delay.left(sequence)

    def _queue_of(self, sequence: Sequence) -> Queue:
        return self._long if self._threshold is not None and len(sequence.tokens) > self._threshold else self._short
