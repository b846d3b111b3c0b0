"""The GGUF header parser: sound files exactly, and each kind of damage named before a tensor is used."""

from __future__ import annotations

import gc
import random
import resource
import struct
import time
import tracemalloc

import pytest

from engine.errors import ModelFileError
from engine_plugins._gguf.cursor import Values
from engine_plugins._gguf.header import read_header
from tests.gguf.files import array, build, entry, number, sound, tensor, text, write

ARCH = entry("general.architecture", "str", text("llama"))


def test_a_sound_file_is_read_exactly(tmp_path):
    header = read_header(write(tmp_path / "m.gguf", sound()))
    values = {key: value.read() if isinstance(value, Values) else value for key, value in header.metadata.items()}
    assert values == {
        "general.architecture": "llama", "llama.block_count": 1, "a.bool": True, "a.f32": 0.5, "a.i8": -3, "a.u64": 2**63,
        "a.f64": 1e-9, "a.numbers": [0, 1, 2, 3, 4], "a.words": ["a", "", "Grüße"],
    }  # fmt: skip
    found = [(each.name, each.type.name, each.shape, each.nbytes) for each in header.tensors.values()]
    assert found == [("x", "F32", (4,), 16), ("y", "Q4_0", (2, 32), 36), ("z", "F16", (3, 2), 12)]
    entries = list(header.tensors.values())
    assert [each.offset - entries[0].offset for each in entries] == [0, 32, 96]
    assert entries[0].offset % 32 == 0


def test_the_gguf_package_writes_what_is_read(tmp_path):
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2", use_temp_file=False)
    writer.add_custom_alignment(64)
    writer.add_token_list(["a", "b"])
    writer.add_array("mixed", [1.5, 2.5])
    first = np.arange(96, dtype=np.float32).reshape(3, 32)
    writer.add_tensor("t", first)
    writer.add_tensor("u", gguf.quants.quantize(first, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "m.gguf")
    for each in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        mine = header.tensors[each.name]
        assert (mine.type.name, mine.shape[::-1], mine.nbytes, mine.offset) == (
            each.tensor_type.name, tuple(each.shape), each.n_bytes, each.data_offset,
        )  # fmt: skip
    assert header.metadata["mixed"].read() == [1.5, 2.5]


BIG = 2**63
DAMAGED = {
    "empty": (b"", "at least 24 bytes, 0 found"),
    "other magic": (build([], [], magic=b"GGML") + b"\0" * 24, "begins with b'GGML' where b'GGUF'"),
    "version 1": (build([], [], version=1), "GGUF version 1;"),
    "big-endian": (build([], [], version=3 << 24), "a big-endian file"),
    "more keys than bytes": (build([ARCH], [], counts=(0, BIG)), f"counts {BIG} keys"),
    "more tensors than bytes": (build([ARCH], [], counts=(2**61, 1)), f"counts {2**61} tensors"),
    "a key that never ends": (build([text(b"k", BIG) + b"\0" * 40], []), "at most 65535 are read"),
    "a key twice": (build([ARCH, ARCH], []), "'general.architecture' is there twice"),
    "a key of no text": (build([entry(b"\xff\xfe", "u8", b"\1")], []), "key 0 of 1 is no UTF-8"),
    "an unknown value type": (build([text("k") + struct.pack("<I", 77) + b"\0" * 30], []), "k has the value type 77"),
    "a text beyond the end": (build([entry("k", "str", text(b"", 10_000))], []), "k needs 10000 bytes"),
    "an overflowing array": (build([entry("k", "arr", array(6, 2**62, b""))], []), f"{2**62} entries of k needs {2**64} bytes"),
    "an overflowing array of texts": (build([entry("k", "arr", array(8, 2**61, b""))], []), f"{2**61} strings of k needs {2**64} bytes"),
    "a text of an array beyond the end": (
        build([entry("k", "arr", array(8, 2, text("a") + text(b"", 2**63)))], []), "k ends at byte",
    ),
    "an array of arrays": (build([entry("k", "arr", array(9, 1, array(9, 1, b"")))], []), "k is an array of type 9"),
    "a truth value of 2": (build([entry("k", "bool", b"\2")], []), "k is a truth value of 2"),
    "no alignment": (build([entry("general.alignment", "u32", number("u32", 0))], []), "general.alignment is 0; a power of two"),
    "an odd alignment": (build([entry("general.alignment", "u32", number("u32", 48))], []), "general.alignment is 48"),
    "an alignment of text": (build([entry("general.alignment", "str", text("8"))], []), "general.alignment is '8'"),
    "no dimensions": (build([], [tensor("t", (), 0, 0)]), "'t' has 0 dimensions"),
    "many dimensions": (build([], [tensor("t", (1,), 0, 0, count=2**31)]), f"'t' has {2**31} dimensions"),
    "a size of nothing": (build([], [tensor("t", (0, 4), 0, 0)]), "holds 0 elements"),
    "overflowing sizes": (build([], [tensor("t", (2**33, 2**33), 0, 0)]), "holds 73786976294838206464 elements"),
    "an unknown type": (build([], [tensor("t", (32,), 99, 0)], b"\0" * 128), "'t' has the type 99, which is unknown; known are F32"),
    "a removed type": (build([], [tensor("t", (32,), 4, 0)], b"\0" * 128), "'t' has the type 4"),
    "rows of no whole block": (build([], [tensor("t", (33,), 2, 0)], b"\0" * 128), "rows of 33; a multiple of 32 was expected"),
    "an offset that is not aligned": (build([], [tensor("t", (1,), 0, 8)], b"\0" * 64), "begins at byte 8 of the data; a multiple of 32"),
    "an offset beyond the end": (build([], [tensor("t", (4,), 0, 2**40)], b"\0" * 64), "ends at byte"),
    "an offset that overflows": (build([], [tensor("t", (4,), 0, 2**64 - 32)], b"\0" * 64), "ends at byte"),
    "tensors over each other": (
        build([], [tensor("t", (32,), 0, 0), tensor("u", (32,), 0, 64)], b"\0" * 256), "inside the tensor 't', which ends at",
    ),
    "a tensor twice": (build([], [tensor("t", (4,), 0, 0), tensor("t", (4,), 0, 32)], b"\0" * 64), "'t' is there twice"),
    "a truncated tensor": (build([], [tensor("t", (8,), 0, 0)], b"\0" * 31), "'t' (F32 [8]) ends at byte"),
    "a tensor's name that never ends": (build([], [text(b"n", 5000) + b"\0" * 60]), "at most 1024 are read"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_named(what, tmp_path):
    content, message = DAMAGED[what]
    path = write(tmp_path / "m.gguf", content)
    began = time.monotonic()
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.status == 4
    assert time.monotonic() - began < 2


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        read_header(tmp_path / "missing.gguf")


def test_every_truncation_is_refused(tmp_path):
    whole = sound()
    path = tmp_path / "m.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"m\.gguf"):
            read_header(path)


def test_hundred_thousands_of_long_counts_are_refused_at_once(tmp_path):
    """Five million empty strings, each there: refused by their number, before they are passed over."""
    path = write(tmp_path / "m.gguf", build([entry("k", "arr", array(8, 5_000_000, b"\0" * 40_000_000))], []))
    began = time.monotonic()
    with pytest.raises(ModelFileError, match="at most 4000000 are read"):
        read_header(path)
    assert time.monotonic() - began < 2


def mutated(whole: bytes, source: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place = source.randrange(len(data))
        kind = source.randrange(6)
        if kind == 0:
            data[place] = source.randrange(256)
        elif kind == 1:
            data[place] ^= 1 << source.randrange(8)
        elif kind == 2:
            data[place : place + 8] = struct.pack("<Q", source.choice((0, 1, 2**31, 2**32, 2**61, 2**63, 2**64 - 1)))
        elif kind == 3:
            del data[place : place + source.randrange(1, 40)]
        elif kind == 4:
            data[place:place] = bytes(source.randrange(256) for _ in range(source.randrange(1, 40)))
        else:
            data[place : place + 4] = struct.pack("<I", source.choice((0, 9, 12, 13, 2**16, 2**32 - 1)))
        if not data:
            break
    return bytes(data)


def test_ten_thousand_mutated_files(tmp_path):
    """Each is read or refused with a message; none takes long, hangs, crashes or keeps memory."""
    source = random.Random(17)
    whole, path = sound(), tmp_path / "m.gguf"
    refused, slowest = 0, 0.0
    try:
        for number_ in range(10_000):
            if number_ == 8000:
                tracemalloc.start()
                gc.collect()
                kept, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            path.write_bytes(mutated(whole, source))
            began = time.monotonic()
            try:
                header = read_header(path)
                for value in header.metadata.values():
                    if isinstance(value, Values):
                        value.read()
            except ModelFileError as error:
                refused += 1
                assert "m.gguf" in str(error)
            slowest = max(slowest, time.monotonic() - began)
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 4000 < refused < 10_000
    assert slowest < 2
    assert held - kept < 200_000
    assert peak - kept < 5_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 20_000
