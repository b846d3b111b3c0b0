"""The native library of every instruction set that this processor runs."""

from __future__ import annotations

import os

import pytest

from engine_devices._native import Absent, Native, open_library, processor_flags
from engine_devices.native.build import INSTRUCTION_SETS, BuildFailed, compiler, instruction_set

THREADS = 3


@pytest.fixture(scope="session", params=[isa.name for isa in INSTRUCTION_SETS])
def native(request: pytest.FixtureRequest) -> Native:
    """With three threads, more than some kernels have work for."""
    isa = instruction_set(request.param)
    if missing := isa.needs - processor_flags():
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    library = open_library(isa, sanitize=os.environ.get("ENGINE_CPU_SANITIZE", "0") == "1")
    if isinstance(library, Absent):
        try:
            compiler()
        except BuildFailed as error:
            pytest.skip(str(error))
        pytest.fail(library.reason)
    assert library.start(THREADS) == THREADS
    return library
