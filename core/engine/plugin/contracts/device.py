"""Contract of a device: memory, kernels, attention, recording of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin.contracts.attention import AttentionBackend
    from engine.plugin.contracts.operations import Operations
    from engine.plugin.contracts.packed import LinearKernel, PackedWeight


class Memory(msgspec.Struct, frozen=True):
    """Bytes: what the device has in all (cgroup limits counted) and what is free now."""

    total: int
    free: int


class CannotRecord(Exception):
    """A step cannot be recorded, so it runs plainly; ``str(error)`` says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Succession:
    """How a decode step goes over into the next one of the same R sequences: each goes on with its largest logit's token.

    The step's last two results are each row's largest logit (float32) and its id. ``inputs``: the step's own, in host memory: token ids,
    positions, slots (int64) and lengths (int32), which are changed to the next step's. ``slots``: where that one stores its rows.
    ``found`` [R] int64 receives the ids. ``ends``, int64: tokens that may end a sequence, for row r those before ``end_of`` [r] (int32)
    that are not an earlier row's.
    """

    inputs: tuple[NDArray[Any], ...]
    slots: NDArray[np.int64]
    found: NDArray[np.int64]
    ends: NDArray[np.int64]
    end_of: NDArray[np.int32]


class UnderWay(ABC):
    """A recorded step that has begun beside its caller; its input buffers must stay as they are until it is over.

    Whatever else the device is given to do ends it.
    """

    @abstractmethod
    def finish(self) -> tuple[Tensor, ...]:
        """Wait until it is done, begun anew if it was ended; returns what ``run`` would have returned."""

    def finish_and_go_on(self, succession: Succession) -> tuple[Tensor, ...] | None:
        """As ``finish``, and begin the next step at once: None then, and this object stands for that one.

        Where a row ends or has no finite logit, or where the device does not do that, nothing begins: the results then, as of ``finish``.
        """
        return self.finish()

    @abstractmethod
    def drop(self) -> None:
        """End it; what it has written stays."""


class Replay(ABC):
    """A recorded step for one batch shape."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Tensor, ...]:
        """Where the results stand; valid until another step of the recorder runs or is recorded."""

    @abstractmethod
    def run(self) -> tuple[Tensor, ...]:
        """Repeat the recorded work on the same input buffers; returns ``outputs``."""

    def begin(self) -> UnderWay | None:
        """As ``run``, but return at once; None: this device does not begin steps, and nothing has begun."""
        return None


class RaggedReplay(ABC):
    """A recorded step for any number of rows, from ``least`` on, of sequences, and of wanted rows."""

    least: int

    @abstractmethod
    def run(self, rows: int, sequences: int, wanted: int = 0) -> tuple[Tensor, ...]:
        """Repeat the recorded work on the first ``rows`` rows, ``sequences`` sequences and ``wanted`` wanted rows of the input buffers.

        The results have as many rows, or as many as are wanted, whichever they had when they were recorded, and are valid until another
        step of the recorder runs or is recorded.
        """

    def begin(self, rows: int, sequences: int) -> UnderWay | None:
        """As ``run``, but return at once; None: this device does not begin steps, and nothing has begun."""
        return None


class Recorder(ABC):
    """Records a step once and replays it: CUDA graphs, or a tape of native calls. The plain path stays the truth."""

    #: Whether recording is the step itself and little more: then each batch size is recorded when it first occurs, exactly,
    #: and the replay's ``outputs`` hold its results at once. Otherwise a ladder of sizes is recorded before serving, and
    #: steps are padded to the next size.
    cheap: bool = False
    #: The most rows, sequences and wanted rows at which ``record_ragged`` runs its body: buffers hold at least as many.
    ragged_trial: tuple[int, int, int] = (0, 0, 0)

    @abstractmethod
    def record(self, body: Callable[[], tuple[Tensor, ...]]) -> Replay:
        """Run ``body`` (which reads and writes preallocated buffers only) as often as needed and record it.

        Raises :class:`CannotRecord`.
        """

    def record_ragged(
        self,
        fill: Callable[[int, int, int], None],
        body: Callable[[int, int, int], tuple[Tensor, ...]],
        *,
        shapes: tuple[tuple[int, int, int], ...] = (),
    ) -> RaggedReplay:
        """Record ``body(rows, sequences, wanted)`` for any number of each, by running it at two ``shapes``, by default of the recorder's
        choice; ``body`` need not look at all of them.

        Shapes with as many rows as sequences record decode steps: replays then have as many of both.
        ``fill(rows, sequences, wanted)`` puts inputs into the buffers of which ``body`` computes the first rows, leaving no trace
        elsewhere; more rows may be wanted than there are, some of them twice. Raises :class:`CannotRecord`, by default always.
        """
        raise CannotRecord("the device records steps of one shape each")


class WeightTransfer(ABC):
    """Copies weights from host memory to the device's while the device computes.

    A transfer begins when the work submitted before ``begin`` is done, and work submitted after ``wait`` begins when the transfer is: so
    whoever writes over what earlier work reads, and reads what was copied, needs no other order.
    """

    @abstractmethod
    def host_memory(self, size: int) -> Tensor:
        """uint8 [size] in host memory that the device copies from by itself (page-locked). Raises
        :class:`engine.errors.MemoryShortage`.
        """

    @abstractmethod
    def begin(self, target: Tensor, source: Tensor) -> Any:
        """Begin to copy ``source`` (a part of :meth:`host_memory`) to ``target`` on the device; returns what ``wait`` takes."""

    @abstractmethod
    def wait(self, transfer: Any) -> None:
        """Let work that is submitted from here on begin after that transfer; does not hold up the caller. May be called again."""


class Device(ABC):
    """One device as a worker uses it. Made once per worker, after the process is its own."""

    #: The plugin's name (``cpu``).
    name: str

    @abstractmethod
    def torch_device(self) -> torch.device:
        """Where tensors live."""

    @abstractmethod
    def memory(self) -> Memory:
        """Total and free bytes now."""

    @abstractmethod
    def attention(self) -> AttentionBackend | None:
        """The device's own attention and page layout; None takes the core's built-in pair (Triton on CUDA, torch elsewhere)."""

    def linear_kernel(self, packed: PackedWeight) -> LinearKernel | None:
        """The device's kernel for a canonical layout; None takes the core's dequantize-and-matmul reference."""
        return None

    def operations(self) -> Operations | None:
        """The device's own operations between linear layers and attention; None takes the core's in torch."""
        return None

    def recorder(self) -> Recorder | None:
        """Records decode steps; None: steps always run plainly."""
        return None

    def weight_transfer(self) -> WeightTransfer | None:
        """How weights that stay in host memory come here (``--cpu-offload-gb``); None: they cannot.

        A device that can says so in its facts too (``DeviceFacts.fetches_weights``).
        """
        return None

    def collective_backend(self) -> str:
        """torch.distributed backend between workers on this device."""
        return "gloo"

    def dtypes(self) -> tuple[str, ...]:
        """Activation dtypes that work here, best first."""
        return ("float32", "bfloat16", "float16")

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""

    def describe(self) -> dict[str, str]:
        """What ``engine plan`` shows: kernels in use and why."""
        return {}

    def limits(self, dtype: str) -> dict[str, float]:
        """What the hardware does at most, measured now, for benchmarks to compare with.

        ``read_bytes``: bytes read from memory per second (median of passes), ``read_bytes_best``: of the best pass;
        ``operations``, ``operations_best``: multiplications and additions of that dtype per second, likewise. ``dtype``: one of
        activations, or ``int8`` where a kernel's :meth:`LinearKernel.work` says that. Passes take a second or more together, so that
        the median is what the hardware sustains for as long as a phase lasts. Empty: torch is measured instead.
        """
        return {}

    def profile(self, on: bool) -> dict[str, float]:
        """Seconds by kernel since profiling was last turned on; ``on`` says whether it goes on from here, counting from 0.

        Empty where the device cannot tell.
        """
        return {}

    def close(self) -> None:
        """Release the device. May be called twice."""
