"""Records a step's native operations on a tape, and replays it with one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.plugin import CannotRecord, Recorder, Replay, UnderWay
from engine_devices._begun import begin
from engine_devices._fusions import fuse
from engine_devices._native import Call, Native
from engine_devices._ragged import SHAPES, RaggedTape, Recording
from engine_devices._tape import Arena, Buffers, Tape


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches for torch operations that compute something: a tape would not repeat them.

    Views move nothing and allocations are noted; anything else makes ``refusal`` name the operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated: list[Tensor] = []
        self.refusal: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler at the first operation, 150 MiB and a second for what is never compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and note it."""
        result = func(*args, **(kwargs or {}))
        if func._schema.name in _ALLOCATIONS:
            self.allocated.append(result)
        elif self.refusal is None and not _is_view(func):
            self.refusal = func._schema.name.replace("aten::", "torch.")
        return result


_ALLOCATIONS = frozenset({"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"})


def _is_view(func: Any) -> bool:
    """Whether what it returns shares its argument's memory, unchanged."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


class TapeReplay(Replay):
    """One tape."""

    def __init__(self, native: Native, tape: Tape, arena: Arena) -> None:
        self._native = native
        self._run = native.run_list
        self._passed = arena.passed
        self._tape = tape

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Views of the arena."""
        return self._tape.outputs

    def run(self) -> tuple[Tensor, ...]:
        """All operations in one call; the thread pool passes from one to the next by itself."""
        self._run(self._tape.operations)
        self._passed(ragged=False)
        return self._tape.outputs

    def begin(self) -> UnderWay | None:
        """The same, and the caller is free meanwhile."""
        return begin(self._native, self._tape.operations, lambda: self._tape.outputs, lambda: self._passed(ragged=False))


class TapeRecorder(Recorder):
    """Records what runs through the native library.

    The first tape is checked: replayed at once on the same inputs, it must repeat the recorded results bit by bit. Where
    it does so only without fused operations, this and all later tapes do without.
    """

    cheap = True
    ragged_trial = SHAPES[-1]

    def __init__(self, native: Native) -> None:
        self._native = native
        self._arena = Arena()
        self._checked = False
        self._fusing = True

    def record(self, body: Callable[[], tuple[Tensor, ...]]) -> TapeReplay:
        """Run ``body`` once. Raises :class:`CannotRecord` where it computes outside the native operations.

        ``body`` leaves no trace but in its outputs and in memory that repeating it writes the same way.
        """
        calls, buffers, outputs = self._watch(body)
        if not self._checked:
            self._fusing = _differs(self._tape(calls, buffers, outputs).run(), outputs) is None
            index = None if self._fusing else _differs(self._tape(calls, buffers, outputs).run(), outputs)
            if index is not None:
                raise CannotRecord(f"a replay gave another result {index} than the step that it was recorded from")
            self._checked = True
        replay = self._tape(calls, buffers, outputs)
        for target, source in zip(replay.outputs, outputs, strict=True):
            target.copy_(source)
        return replay

    def record_ragged(
        self,
        fill: Callable[[int, int, int], None],
        body: Callable[[int, int, int], tuple[Tensor, ...]],
        *,
        shapes: tuple[tuple[int, int, int], ...] = SHAPES,
    ) -> RaggedTape:
        """Run ``body`` at two shapes. Raises :class:`CannotRecord` also where a replay does not repeat both of them bit by bit."""
        recordings = []
        for counts in shapes:
            fill(*counts)
            calls, buffers, outputs = self._watch(lambda counts=counts: body(*counts))  # type: ignore[misc]
            recordings.append(Recording(*counts, fuse(calls, buffers, outputs) if self._fusing else calls, buffers, outputs))
        tape = RaggedTape(self._native, self._arena, *recordings)
        for recording in recordings:
            counts = recording.rows, recording.sequences, recording.wanted
            fill(*counts)
            index = _differs(tape.run(*counts), recording.outputs)
            if index is not None:
                raise CannotRecord(f"a replay gave another result {index} than the step that it was recorded from")
        return tape

    def _watch(self, body: Callable[[], tuple[Tensor, ...]]) -> tuple[list[Call], Buffers, tuple[Tensor, ...]]:
        """Run ``body`` and note what it does; its memory stays where it is as long as the result lives."""
        guard = Guard()
        calls: list[Call] = []
        self._native.tape = calls
        try:
            with guard:
                outputs = body()
        finally:
            self._native.tape = None
        if guard.refusal is not None:
            raise CannotRecord(f"{guard.refusal} runs outside the native operations")
        return calls, Buffers(guard.allocated), outputs

    def _tape(self, calls: list[Call], buffers: Buffers, outputs: tuple[Tensor, ...]) -> TapeReplay:
        """A tape of these calls in the arena."""
        fused = fuse(calls, buffers, outputs) if self._fusing else calls
        tape = Tape(self._native, fused, buffers, outputs)
        self._arena.hold(tape)
        return TapeReplay(self._native, tape, self._arena)


def _differs(replayed: tuple[Tensor, ...], recorded: tuple[Tensor, ...]) -> int | None:
    """The first result that is not the same to the bit."""
    pairs = enumerate(zip(replayed, recorded, strict=True))
    return next((index for index, (ours, theirs) in pairs if not torch.equal(_bytes(ours), _bytes(theirs))), None)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
