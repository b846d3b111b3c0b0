"""Libraries' pages that are let go: which ones, that they come back, and that loading libraries beside it does no harm."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import os
import subprocess
import sys

import pytest
import torch

from engine import code_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident(name: str) -> int:
    """Bytes of a file that this process has in memory."""
    total, inside = 0, False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            words = line.split()
            if not words[0].endswith(":"):
                inside = name in words[-1]
            elif inside and words[0] == "Rss:":
                total += int(words[1]) * 1024
    return total


def test_code_is_let_go_and_comes_back():
    torch.ones(64).sort()
    before = code_pages.resident()
    assert before > resident("libtorch_cpu") > 0
    code_pages.forget()
    assert resident("libtorch_cpu") < 8 << 20
    assert code_pages.resident() < before
    weight = torch.eye(64)
    assert torch.equal(weight @ weight, weight)


def test_only_what_the_loader_has_loaded_is_let_go(tmp_path):
    """A file that is being mapped by the loader looks like this: it may be written to the next moment."""
    file = tmp_path / "library.so"
    content = bytes(range(256)) * 4096
    file.write_bytes(content)
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    assert mapped[:] == content
    code_pages.forget()
    assert resident(str(file)) == len(content)


def test_pages_that_were_written_to_stay(tmp_path):
    """As a debugger or a patch leaves them: a copy of the file's page, which the file could not give back."""
    file = tmp_path / "library.so"
    file.write_bytes(b"old " * mmap.PAGESIZE)
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    protect = ctypes.CDLL(None).mprotect

    def listed(protection: int) -> bool:
        assert protect(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), protection) == 0
        return address in [start for start, _ in code_pages._unwritten()]

    assert listed(mmap.PROT_READ)
    assert not listed(mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[:4] = b"new "
    assert not listed(mmap.PROT_READ)
    assert protect(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), mmap.PROT_READ | mmap.PROT_WRITE) == 0


LOADING = """
import os, sys, threading
import _ctypes
from engine import code_pages
source = sys.argv[1]
ended = threading.Event()
def load():
    while not ended.is_set():
        handle = _ctypes.dlopen(source, os.RTLD_NOW)
        _ctypes.dlclose(handle)
threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(100): code_pages.forget()
ended.set()
for thread in threads: thread.join()
import decimal
print(decimal.Decimal(1) / 3)
"""


def test_libraries_may_be_loaded_and_unloaded_at_the_same_time():
    library = ctypes.util.find_library("sqlite3") or ctypes.util.find_library("z")
    if library is None:
        pytest.skip("no library that nothing else uses")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LOADING, library]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.333")
