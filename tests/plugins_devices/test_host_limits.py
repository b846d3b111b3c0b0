from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine_devices._host_limits import USUAL_CACHE, host_memory, last_cache_bytes, usable_cores

GIB = 1 << 30


class Machine:
    """A made-up /proc and /sys/fs/cgroup: 16 GiB, 12 of them available, 4 CPUs on 2 cores."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys, self.groups = root / "proc", root / "sys", root / "cgroup"
        self.write(self.proc / "meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
        for cpu in range(4):
            first = cpu // 2 * 2
            topology = self.sys / f"devices/system/cpu/cpu{cpu}/topology"
            self.write(topology / "thread_siblings_list", f"{first}-{first + 1}\n")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def v2(self, path: str = "/pod/box", root: str = "/") -> None:
        self.write(self.proc / "self/cgroup", f"0::{path}\n")
        self.write(self.proc / "self/mountinfo", f"30 23 0:26 {root} {self.groups} rw - cgroup2 cgroup rw,nsdelegate\n")

    def v1(self, path: str = "/box", root: str = "/") -> None:
        self.write(self.proc / "self/cgroup", f"5:memory:{path}\n4:cpu,cpuacct:{path}\n0::/\n")
        self.write(
            self.proc / "self/mountinfo",
            f"30 23 0:26 {root} {self.groups}/memory rw shared:9 - cgroup cgroup rw,memory\n"
            f"31 23 0:27 {root} {self.groups}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            "32 23 0:28 / / rw - ext4 /dev/vda rw\n",
        )

    def group(self, path: str, **files: str) -> None:
        for name, text in files.items():
            self.write(self.groups / path / name.replace("__", "."), text)

    def cores(self) -> int:
        return usable_cores(self.proc, self.sys)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    return Machine(tmp_path)


def test_without_control_groups_the_machine_is_the_limit(machine):
    memory = host_memory(machine.proc)
    assert (memory.total, memory.free) == (16 * GIB, 12 * GIB)
    assert machine.cores() == 2


def test_v2_own_limit_and_its_page_cache(machine):
    machine.v2()
    machine.group("pod/box", memory__max=f"{4 * GIB}", memory__current=f"{3 * GIB}",
                  memory__stat=f"anon 5\ninactive_file {GIB}\n", cpu__max="150000 100000")  # fmt: skip
    memory = host_memory(machine.proc)
    assert (memory.total, memory.free) == (4 * GIB, 2 * GIB)
    assert machine.cores() == 1


def test_v2_a_parent_may_be_the_tighter_one(machine):
    machine.v2()
    machine.group("pod/box", memory__max="max", memory__current="0", cpu__max="max 100000")
    machine.group("pod", memory__max=f"{8 * GIB}", memory__current=f"{7 * GIB}", cpu__max="50000 100000")
    memory = host_memory(machine.proc)
    assert (memory.total, memory.free) == (8 * GIB, GIB)
    assert machine.cores() == 1


def test_v2_a_group_that_is_over_its_limit_has_nothing_free(machine):
    machine.v2("/")
    machine.group("", memory__max=f"{2 * GIB}", memory__current=f"{3 * GIB}")
    assert host_memory(machine.proc).free == 0


def test_v1_limits(machine):
    machine.v1()
    machine.group("memory/box", memory__limit_in_bytes=f"{6 * GIB}", memory__usage_in_bytes=f"{2 * GIB}",
                  memory__stat="total_inactive_file 0\n")  # fmt: skip
    machine.group("memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="0")
    machine.group("cpu/box", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    machine.group("cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    memory = host_memory(machine.proc)
    assert (memory.total, memory.free) == (6 * GIB, 4 * GIB)
    assert machine.cores() == 1


def test_a_container_sees_its_own_group_as_the_mount(machine):
    """Docker with version 1 mounts the container's group itself; /proc still names it as the host does."""
    machine.v1(path="/docker/abc", root="/docker/abc")
    machine.group("memory", memory__limit_in_bytes=f"{GIB}", memory__usage_in_bytes="0")
    assert host_memory(machine.proc).total == GIB


def test_cores_are_those_the_process_may_run_on(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert machine.cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2})
    assert machine.cores() == 2


def test_this_machine():
    memory = host_memory()
    assert 0 <= memory.free <= memory.total
    assert memory.total > 1 << 28
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_the_largest_cache_counts_and_a_silent_machine_has_a_usual_one(tmp_path):
    assert last_cache_bytes(tmp_path) == USUAL_CACHE
    for index, size in enumerate(("48K", "1024K", "32M")):
        path = tmp_path / f"devices/system/cpu/cpu0/cache/index{index}/size"
        path.parent.mkdir(parents=True)
        path.write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 32 << 20
