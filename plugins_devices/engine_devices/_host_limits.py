"""What this process may use of its machine: memory and cores, container limits counted. Linux; no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")
#: Last-level cache of a machine that does not say how much it has.
USUAL_CACHE = 64 << 20


@dataclass(frozen=True)
class HostMemory:
    """Bytes: what may be used at all, and what is left of it."""

    total: int
    free: int


def host_memory(proc: Path = PROC) -> HostMemory:
    """The smallest of the machine's memory and the limits of the process's control groups and of their parents.

    A group's page cache that the kernel would give back at once (``inactive_file``) counts as free, as it does in
    MemAvailable.
    """
    meminfo = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
    total, free = (int(meminfo[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    for group, names in _groups(proc, "memory"):
        limit = _number(group / names.memory_limit)
        if limit is None:
            continue
        usage = _number(group / names.memory_usage) or 0
        reclaimable = _field(group / "memory.stat", names.inactive_file)
        total = min(total, limit)
        free = min(free, limit - max(0, usage - reclaimable))
    return HostMemory(total, max(0, min(free, total)))


def usable_cores(proc: Path = PROC, sys: Path = SYS) -> int:
    """Physical cores among the CPUs this process may run on, within the control groups' quota; at least 1.

    Threads beyond the quota are throttled together, and two threads on one core share its arithmetic units.
    """
    return max(1, min([len(physical_cores(sys)), *(int(quota) for quota in _quotas(proc))]))


def usable_processors(proc: Path = PROC) -> int:
    """CPUs that this process may run on, siblings on one core counted each, within the control groups' quota; at least 1."""
    return max(1, min([len(os.sched_getaffinity(0)), *(int(quota) for quota in _quotas(proc))]))


def compute_threads() -> int:
    """Threads that a worker computes with: OMP_NUM_THREADS, else one per usable core."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()


def physical_cores(sys: Path = SYS) -> list[int]:
    """One CPU of each physical core that this process may run on."""
    first = {_siblings(sys, cpu): cpu for cpu in sorted(os.sched_getaffinity(0), reverse=True)}
    return sorted(first.values())


@dataclass(frozen=True)
class _Names:
    """The files of one version of control groups."""

    memory_limit: str
    memory_usage: str
    inactive_file: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def _groups(proc: Path, controller: str) -> Iterator[tuple[Path, _Names]]:
    """The process's own group and its parents as directories, for each mounted hierarchy with that controller."""
    paths: dict[str, str] = {}
    for line in _lines(proc / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in _lines(proc / "self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, mount = fields.split()[3:5]
        if kind == "cgroup2" and "" in paths:
            yield from ((group, _V2) for group in _upwards(Path(mount), root, paths[""]))
        elif kind == "cgroup" and controller in options.split(",") and controller in paths:
            yield from ((group, _V1) for group in _upwards(Path(mount), root, paths[controller]))


def _upwards(mount: Path, root: str, path: str) -> Iterator[Path]:
    """From the group up to the mount point; a group outside the mounted subtree is seen as the mount point itself."""
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/")) else ""
    group = mount / inside.strip("/")
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _quotas(proc: Path) -> Iterator[float]:
    for group, names in _groups(proc, "cpu"):
        if names is _V2:
            text = " ".join(_lines(group / "cpu.max")[:1]).split()
            quota, period = (text[0], text[1]) if len(text) == 2 else ("max", "1")
        else:
            quota = " ".join(_lines(group / "cpu.cfs_quota_us")[:1])
            period = " ".join(_lines(group / "cpu.cfs_period_us")[:1])
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _siblings(sys: Path, cpu: int) -> str:
    """The hardware threads of that CPU's core, as the kernel lists them; the CPU alone where it does not."""
    lines = _lines(sys / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return lines[0] if lines else str(cpu)


def _lines(path: Path) -> list[str]:
    """A kernel file's lines; none where the file does not exist or may not be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)[:1]).strip()
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int:
    for line in _lines(path):
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def last_cache_bytes(sys: Path = SYS) -> int:
    """Bytes of the largest cache that the first core reaches."""
    sizes = []
    for path in (sys / "devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:])
        if unit is not None and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=USUAL_CACHE)
