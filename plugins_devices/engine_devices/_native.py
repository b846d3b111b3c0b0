"""The native kernel library: chosen by the processor, loaded (or compiled) once per process, called through ctypes."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.errors import ConfigError
from engine_devices.native.build import INSTRUCTION_SETS, BuildFailed, InstructionSet, build, cache_directory, find, instruction_set

_logger = logging.getLogger(__name__)

#: ``engine_type`` of native/abi.h by torch's name of the dtype, or by what it holds.
ELEMENT_TYPES = {
    "float32": 0, "bfloat16": 1, "float16": 2, "float8_e4m3fn": 3, "float8_e5m2": 4, "int8": 5, "int4": 6, "codes4": 7, "codes8": 8,
    "int2": 9, "int3": 10, "int5": 11, "int6": 12,
}  # fmt: skip

#: Freed bytes after which the C allocator is asked to return memory: each time takes it some milliseconds.
GIVE_BACK = 64 << 20


@dataclass(frozen=True)
class Absent:
    """Why there is no native library; torch computes instead."""

    reason: str


@dataclass(frozen=True)
class Refused(Absent):
    """The system does not let this process use what the processor has."""


class Operation(ctypes.Structure):
    """One ``engine_operation``."""

    _fields_ = (("kernel", ctypes.c_void_p), ("arguments", ctypes.c_void_p))


@dataclass(frozen=True)
class Call:
    """One operation that ran while a tape was set: its argument struct, and what its pointers point to."""

    kernel: str
    arguments: ctypes.Structure
    keep: tuple[object, ...]


class Native:
    """The loaded library. ``tape``: while it is a list, every operation that runs is appended to it.

    ``profile``: while it is a dict, seconds are added to it by kernel.
    """

    def __init__(self, library: ctypes.CDLL, isa: str, path: Path) -> None:
        self.cdll = library
        self.isa = isa
        self.path = path
        self.threads = 1
        self.tape: list[Call] | None = None
        self.profile: dict[str, float] | None = None
        self._addresses: dict[str, int] = {}
        self._allocator = ctypes.CDLL(None)
        self._freed = 0
        library.engine_run.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.engine_run.restype = None
        library.engine_begin.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.engine_begin.restype = None
        library.engine_finish.restype = None
        library.engine_start.restype = ctypes.c_int
        self._run = library.engine_run
        self.finish = library.engine_finish
        library.engine_lead.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.engine_lead.restype = ctypes.c_int
        library.engine_follow.restype = ctypes.c_int
        library.engine_follow_on.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        library.engine_follow_on.restype = ctypes.c_int

    def start(self, threads: int, cores: Sequence[int] | None = None) -> int:
        """Start the pool with that many threads, pinned to ``cores`` where given; returns how many run."""
        pins = None if cores is None else (ctypes.c_int * len(cores))(*cores)
        self.threads = int(self.cdll.engine_start(threads, pins))
        return self.threads

    def address(self, kernel: str) -> int:
        """The address of a kernel, for operations."""
        found = self._addresses.get(kernel)
        if found is None:
            found = ctypes.cast(getattr(self.cdll, kernel), ctypes.c_void_p).value or 0
            self._addresses[kernel] = found
        return found

    def run(self, kernel: str, arguments: ctypes.Structure, *keep: object) -> None:
        """Run one operation now, and note it on the tape if there is one. ``keep``: the tensors behind the pointers."""
        if self.tape is not None:
            self.tape.append(Call(kernel, arguments, keep))
        operation = Operation(self.address(kernel), ctypes.addressof(arguments))
        self._run(ctypes.addressof(operation), 1)
        if self.profile is not None:
            self._count([kernel])

    def run_together(self, calls: Sequence[tuple[str, ctypes.Structure]]) -> None:
        """Run operations one after the other in one call; they are not noted on the tape. The caller keeps what they point to."""
        self.run_list(self.listed(calls))

    def listed(self, calls: Sequence[tuple[str, ctypes.Structure]]) -> ctypes.Array[Operation]:
        """Operations for :meth:`run_list`; the caller keeps their arguments."""
        listed = [Operation(self.address(kernel), ctypes.addressof(arguments)) for kernel, arguments in calls]
        return (Operation * len(calls))(*listed)

    def begin_list(self, operations: ctypes.Array[Operation]) -> None:
        """Have the other threads run prepared operations; they are over before others begin, and when :attr:`finish` returns."""
        if self.profile is not None:
            self.run_list(operations)
        else:
            self.cdll.engine_begin(ctypes.addressof(operations), len(operations))

    def give_back(self, nbytes: int) -> None:
        """So many bytes of C memory were freed: have the allocator return them to the system, now and then.

        It keeps what is freed below other blocks, which would leave a model in memory twice after packing.
        """
        self._freed += nbytes
        if self._freed >= GIVE_BACK and hasattr(self._allocator, "malloc_trim"):
            self._freed = 0
            self._allocator.malloc_trim(0)

    def run_list(self, operations: ctypes.Array[Operation]) -> None:
        """Run prepared operations in one call."""
        self._run(ctypes.addressof(operations), len(operations))
        if self.profile is not None:
            names = {address: name for name, address in self._addresses.items()}
            self._count([names[operation.kernel] for operation in operations])

    def lead_list(self, operations: ctypes.Array[Operation]) -> bool:
        """Have the other threads begin operations that may come to nothing; False: they cannot, and nothing has begun.

        :meth:`follow` or :meth:`drop` ends that, and so does whatever is run or begun before.
        """
        return bool(self.cdll.engine_lead(ctypes.addressof(operations), len(operations)))

    def follow(self) -> bool:
        """Join in what leads until it is done. False: something else came between, which ended it."""
        return bool(self.cdll.engine_follow())

    def follow_on(self, operations: ctypes.Array[Operation], advance: ctypes.Structure) -> int:
        """:meth:`follow`, then :meth:`lead_list` if the inputs advance (native/advance.h): 2; 1: they do not; 0: it was ended before."""
        return int(self.cdll.engine_follow_on(ctypes.addressof(operations), len(operations), ctypes.addressof(advance)))

    def drop(self) -> None:
        """End what leads, if anything does; what it has written stays."""
        self.cdll.engine_drop()

    def switch_profile(self, on: bool) -> dict[str, float]:
        """Seconds by kernel since profiling was turned on; from here it goes on from 0, or ends."""
        taken, self.profile = self.profile, {} if on else None
        self.cdll.engine_profile(int(on))
        return taken or {}

    def _count(self, kernels: list[str]) -> None:
        """Add the seconds of the operations that just ran."""
        seconds = (ctypes.c_double * len(kernels))()
        self.cdll.engine_profile_read(seconds, len(kernels))
        for kernel, taken in zip(kernels, seconds, strict=True):
            if self.profile is not None:
                self.profile[kernel] = self.profile.get(kernel, 0.0) + taken


@cache
def load() -> Native | Absent:
    """The library for this processor, or why there is none.

    ENGINE_CPU_NATIVE=0 leaves it out; ENGINE_CPU_ISA names the instruction set to use. Raises
    :class:`engine.errors.ConfigError` for an ENGINE_CPU_ISA that does not exist or that the processor cannot run.
    """
    if os.environ.get("ENGINE_CPU_NATIVE", "1") == "0":
        return Absent("ENGINE_CPU_NATIVE=0")
    have, sanitize = processor_flags(), os.environ.get("ENGINE_CPU_SANITIZE", "0") == "1"
    found = open_library(isa := chosen_instruction_set(have), sanitize=sanitize)
    if isinstance(found, Refused) and not os.environ.get("ENGINE_CPU_ISA"):
        _logger.warning("%s; the kernels for the next best instruction set are taken", found.reason)
        found = open_library(next(other for other in INSTRUCTION_SETS if other.needs < isa.needs), sanitize=sanitize)
    return found


def open_library(isa: InstructionSet, *, sanitize: bool = False) -> Native | Absent:
    """That instruction set's library, compiled if need be; its pool is not started. ``sanitize``: with ASan and UBSan."""
    try:
        path = find(isa, sanitize=sanitize) or build(isa, cache_directory(), sanitize=sanitize)
        library = ctypes.CDLL(str(path))
    except BuildFailed as error:
        return Absent(str(error))
    except OSError as error:
        return Absent(f"the library cannot be loaded: {error}")
    if number := library.engine_permit():
        return Refused(f"the system does not let this process use {isa.name} ({os.strerror(number)})")
    return Native(library, isa.name, path)


def chosen_instruction_set(flags: frozenset[str] | None = None) -> InstructionSet:
    """What ENGINE_CPU_ISA names, else the best that the processor has."""
    have = processor_flags() if flags is None else flags
    name = os.environ.get("ENGINE_CPU_ISA", "")
    if not name:
        return next(isa for isa in INSTRUCTION_SETS if isa.needs <= have)
    try:
        isa = instruction_set(name)
    except KeyError:
        known = ", ".join(isa.name for isa in INSTRUCTION_SETS)
        raise ConfigError(f"ENGINE_CPU_ISA={name} is no instruction set; known are {known}.", fix="unset ENGINE_CPU_ISA") from None
    if missing := isa.needs - have:
        raise ConfigError(
            f"ENGINE_CPU_ISA={name} needs {', '.join(sorted(missing))}, which this processor lacks.", fix="unset ENGINE_CPU_ISA"
        )
    return isa


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The x86 processor's features; none on other machines, where only the portable kernels run."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
