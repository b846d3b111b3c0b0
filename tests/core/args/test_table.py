"""The flag table: complete, frozen, and equal to the specification where that is at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from engine.args.engine_args import EngineArgs, read_command_line
from engine.args.flag import TYPES, Flag
from engine.args.table import FLAGS, by_dest
from tests import data

_FROZEN = (Path(__file__).parent / "frozen_flags.txt").read_text().splitlines()
_SAMPLES = {
    "str": "x", "text": "x", "int": "3", "float": "0.5", "json": '{"a": 1}', "literal": '{"a": 1}', "words": "x", "each": "x",
    "list": '["x"]', "counts": "image=2", "floats": "2.0,4.0", "names": "x",
}  # fmt: skip


def test_there_are_113_engine_flags_and_none_changed_by_accident():
    assert len(_FROZEN) == 113
    flags = by_dest()
    for line in _FROZEN:
        name, aliases, type_, default, group = line.split("|")
        flag = flags[name.lstrip("-").replace("-", "_")]
        assert [flag.name, ",".join(flag.aliases), flag.type, repr(flag.default), flag.group] == [name, aliases, type_, default, group]


def test_names_are_unique_and_types_known():
    spellings = [spelling for flag in FLAGS for spelling in flag.spellings]
    assert len(spellings) == len(set(spellings))
    assert {flag.type for flag in FLAGS} <= set(TYPES)
    assert all(flag.help.endswith(".") for flag in FLAGS)


def specification() -> list[dict[str, str]]:
    path = data.root().parent / "reference" / "engine-args.csv"
    if not path.exists():
        pytest.skip("the flag specification is not here")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_the_specification():
    flags = {flag.name: flag for flag in FLAGS}
    for row in specification():
        flag = flags[row["flag"]]
        assert flag.group == row["component"]
        assert row["short"] in ("", *flag.aliases)
        assert str(flag.default).removesuffix(".0") == row["default"].removesuffix(".0")
        wanted = [choice for choice in row["choices"].split("|") if choice not in ("", "None")]
        if flag.name not in ("--compilation-config", "--generation-config"):
            assert set(wanted) <= set(flag.choices)
        expected = {"flag": "flag", "flag pair": "pair"}.get(row["type"])
        assert expected in (None, flag.type)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.name not in ("--model", "--config")], ids=lambda flag: flag.name)
def test_every_flag_is_parsed_in_both_spellings_to_the_same_value(flag: Flag):
    value = _sample(flag)
    values = []
    for name in (flag.name, "--" + flag.dest):
        argv = ["demo", name] if value is None else ["demo", name, value]
        line = read_command_line(argv, entries=[])
        assert flag.dest in line.args.given
        values.append(getattr(line.args, flag.dest))
        if value is not None:
            glued = read_command_line(["demo", f"{name}={value}"], entries=[])
            values.append(getattr(glued.args, flag.dest))
    assert all(found == values[0] for found in values)
    assert type(values[0]) is type(_expected(flag, value))


def _sample(flag: Flag) -> str | None:
    if flag.type in ("flag", "pair"):
        return None
    if flag.type == "switch":
        return "false"
    if flag.type == "names" and flag.choices:
        return flag.choices[0]
    if flag.choices:
        return flag.choices[-1]
    return _SAMPLES[flag.type]


def _expected(flag: Flag, value: str | None) -> object:
    kinds = {"flag": True, "pair": True, "switch": False, "int": 1, "float": 1.0, "json": {}, "literal": {}, "counts": {}}
    return kinds.get(flag.type, [] if flag.type in ("words", "each", "list", "floats", "names") else "")


def test_defaults_without_any_flag():
    args = EngineArgs()
    for flag in FLAGS:
        assert getattr(args, flag.dest) == flag.default
    assert args.given == frozenset()
