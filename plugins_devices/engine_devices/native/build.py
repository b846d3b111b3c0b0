"""Compiles the native kernels: one shared object per instruction set, kept in the package or in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).absolute().parent
#: Where a wheel carries its prebuilt libraries.
PREBUILT = SOURCES / "lib"
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=default")
SANITIZE = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")


@dataclass(frozen=True)
class InstructionSet:
    """What a library is compiled for. ``needs``: processor flags as /proc/cpuinfo spells them."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


_NEEDS_AVX2 = frozenset({"avx2", "fma", "f16c"})
_NEEDS_AVX512 = _NEEDS_AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_AVX512_BF16 = (*_AVX512, "-mavx512vnni", "-mavx512bf16")
_NEEDS_AVX512_BF16 = _NEEDS_AVX512 | {"avx512_vnni", "avx512_bf16"}
#: Best first.
INSTRUCTION_SETS = (
    InstructionSet(
        "amx", (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"), _NEEDS_AVX512_BF16 | {"amx_tile", "amx_bf16", "amx_int8"}
    ),
    InstructionSet("avx512_bf16", _AVX512_BF16, _NEEDS_AVX512_BF16),
    InstructionSet("avx512", _AVX512, _NEEDS_AVX512),
    InstructionSet("avx2", _AVX2, _NEEDS_AVX2),
    InstructionSet("portable", (), frozenset()),
)


class BuildFailed(Exception):
    """No library could be made; the message says why."""


def instruction_set(name: str) -> InstructionSet:
    """The one of that name. Raises :class:`KeyError`."""
    return {known.name: known for known in INSTRUCTION_SETS}[name]


def sources() -> list[Path]:
    """Every file that a library is made of."""
    return sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])


def file_name(isa: InstructionSet, *, sanitize: bool = False) -> str:
    """The library's name; it contains a hash of sources and flags, so that another version's file is never taken."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join([*FLAGS, *isa.flags, *(SANITIZE if sanitize else ())]).encode())
    return f"engine_native-{isa.name}{'-sanitize' if sanitize else ''}-{digest.hexdigest()[:16]}.so"


def cache_directory() -> Path:
    """Where libraries compiled at first use are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "engine" / "native"


def find(isa: InstructionSet, *, sanitize: bool = False) -> Path | None:
    """The library if it exists: the package's own first, then the cache's."""
    name = file_name(isa, sanitize=sanitize)
    return next((path for path in (PREBUILT / name, cache_directory() / name) if path.is_file()), None)


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, g++ or clang++. Raises :class:`BuildFailed`."""
    if chosen := os.environ.get("CXX"):
        words = shlex.split(chosen)
        if words and shutil.which(words[0]):
            return words
        raise BuildFailed(f"CXX names {chosen!r}, which is no program here")
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    raise BuildFailed("no C++ compiler was found (g++, clang++ or $CXX)")


def build(isa: InstructionSet, directory: Path, *, sanitize: bool = False) -> Path:
    """Compile into ``directory`` unless the file is there. Safe against other processes doing the same.

    Raises :class:`BuildFailed` with the compiler's first complaint.
    """
    target = directory / file_name(isa, sanitize=sanitize)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / f"{target.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                _compile(isa, target, SANITIZE if sanitize else ())
    except OSError as error:
        raise BuildFailed(f"the library cannot be written to {directory}: {error}") from error
    return target


def _compile(isa: InstructionSet, target: Path, extra: tuple[str, ...]) -> None:
    """Each source by itself, side by side, then linked: the time of the longest one instead of all."""
    command = [*compiler(), *FLAGS, *isa.flags, *extra]
    with tempfile.TemporaryDirectory(dir=target.parent) as directory, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        units = {path: Path(directory) / f"{path.stem}.o" for path in sources() if path.suffix == ".cpp"}
        list(pool.map(lambda unit: _run([*command, "-c", "-o", str(unit[1]), str(unit[0])]), units.items()))
        library = Path(directory) / target.name
        _run([*command, "-shared", *(() if extra else ("-Wl,-z,defs",)), "-o", str(library), *map(str, units.values())])
        os.replace(library, target)


def _run(command: list[str]) -> None:
    # Libraries loaded into this process first (a sanitizer's) are not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{command[0]} took longer than {error.timeout:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        raise BuildFailed(f"{command[0]} failed: {lines[0].strip()}")
