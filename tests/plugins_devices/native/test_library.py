"""Which native library is taken, how it is found and compiled, and what happens where that cannot be."""

from __future__ import annotations

import ctypes

import pytest

from engine.errors import ConfigError
from engine_devices import _native
from engine_devices._native import Absent, Refused, chosen_instruction_set, load, open_library, processor_flags
from engine_devices.native import build

PORTABLE = build.instruction_set("portable")


def test_the_best_that_the_processor_has(monkeypatch):
    monkeypatch.delenv("ENGINE_CPU_ISA", raising=False)
    everything = frozenset().union(*(isa.needs for isa in build.INSTRUCTION_SETS))
    assert chosen_instruction_set(everything).name == "amx"
    assert chosen_instruction_set(everything - {"amx_int8"}).name == "avx512_bf16"
    assert chosen_instruction_set(everything - {"amx_tile", "avx512_bf16"}).name == "avx512"
    assert chosen_instruction_set(everything - {"avx512bw"}).name == "avx2"
    assert chosen_instruction_set(frozenset()).name == "portable"


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("ENGINE_CPU_ISA", "portable")
    assert chosen_instruction_set() == PORTABLE
    monkeypatch.setenv("ENGINE_CPU_ISA", "avx512")
    with pytest.raises(ConfigError, match=r"ENGINE_CPU_ISA=avx512 needs .*avx512f.*lacks"):
        chosen_instruction_set(frozenset({"avx2", "fma", "f16c"}))
    monkeypatch.setenv("ENGINE_CPU_ISA", "mmx")
    with pytest.raises(ConfigError, match="known are amx, avx512_bf16, avx512, avx2, portable"):
        chosen_instruction_set()


def test_processor_flags(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu avx2 fma\nbugs : none\n")
    assert processor_flags(path) == {"fpu", "avx2", "fma"}
    assert processor_flags(tmp_path / "absent") == frozenset()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor_flags(path) == frozenset()


def test_left_out_by_the_environment(monkeypatch):
    monkeypatch.setenv("ENGINE_CPU_NATIVE", "0")
    assert load.__wrapped__() == Absent("ENGINE_CPU_NATIVE=0")


def test_no_compiler_is_a_reason_and_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = open_library(PORTABLE)
    assert isinstance(found, Absent)
    assert "no C++ compiler" in found.reason
    monkeypatch.setenv("CXX", "no-such-compiler -v")
    found = open_library(PORTABLE)
    assert isinstance(found, Absent)
    assert "no-such-compiler" in found.reason


def test_a_compiler_that_fails_says_why(monkeypatch, tmp_path):
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho 'x.cpp:1: error: it is Monday' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(build.BuildFailed, match="it is Monday"):
        build.build(PORTABLE, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.so"))


def test_a_directory_that_cannot_be_written_is_a_reason(monkeypatch, tmp_path):
    (tmp_path / "engine").write_text("a file where the directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "none")
    found = open_library(PORTABLE)
    assert isinstance(found, Absent)
    assert "cannot be written" in found.reason


def test_a_prebuilt_library_comes_before_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "lib")
    assert build.find(PORTABLE) is None
    cached = build.cache_directory() / build.file_name(PORTABLE)
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert build.find(PORTABLE) == cached
    prebuilt = tmp_path / "lib" / cached.name
    prebuilt.parent.mkdir()
    prebuilt.touch()
    assert build.find(PORTABLE) == prebuilt


def test_what_the_system_refuses_gives_way_to_the_next_best(monkeypatch, caplog):
    """A processor may have a matrix unit whose registers the system does not hand out."""
    opened: list[str] = []

    def refusing(isa, *, sanitize=False):
        opened.append(isa.name)
        return Refused("the system does not let this process use amx") if isa.name == "amx" else Absent("a library")

    monkeypatch.delenv("ENGINE_CPU_ISA", raising=False)
    monkeypatch.setattr(_native, "open_library", refusing)
    monkeypatch.setattr(_native, "processor_flags", lambda: build.instruction_set("amx").needs)
    assert load.__wrapped__() == Absent("a library")
    assert opened == ["amx", "avx512_bf16"]
    assert "does not let this process use amx; the kernels for the next best" in caplog.text
    monkeypatch.setenv("ENGINE_CPU_ISA", "amx")
    assert isinstance(load.__wrapped__(), Refused)


def test_the_name_follows_flags_and_instruction_set():
    names = {build.file_name(isa, sanitize=sanitize) for isa in build.INSTRUCTION_SETS for sanitize in (False, True)}
    assert len(names) == 2 * len(build.INSTRUCTION_SETS)


def test_the_library_says_what_it_is(native):
    native.cdll.engine_instruction_set.restype = ctypes.c_char_p
    assert native.cdll.engine_instruction_set().decode() == native.isa
