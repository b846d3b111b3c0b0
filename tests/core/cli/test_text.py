"""Texts of any bytes and locales: prompts that are no UTF-8 are refused, names that a terminal lacks are shown all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ROOTS = ("core", "plugins", "plugins_quant", "plugins_devices", "plugins_parsers")


def engine(*arguments: str | bytes, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join([*(str(REPOSITORY / root) for root in ROOTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, "-m", "engine", *arguments], input=given, capture_output=True, env=environment, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "given", "line"),
    [
        (("--prompt", b"\xff\xfe"), b"", "--prompt '\\udcff\\udcfe': not UTF-8. Try: a prompt in UTF-8"),
        ((), b"ab\xff", "Standard input, which is the prompt, is not UTF-8: byte 2 (0xff). Try: a prompt in UTF-8"),
    ],
    ids=["argument", "standard input"],
)
def test_a_prompt_that_is_no_text_is_refused(arguments: tuple[str | bytes, ...], given: bytes, line: str) -> None:
    done = engine("generate", "demo", *arguments, given=given)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == f"engine generate: {line}"


def test_a_prompt_in_a_locale_without_its_letters() -> None:
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = engine("generate", "demo", "--prompt", "é".encode(), "--max-tokens", "2", "--temperature", "0", **bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\\xe9")


def test_a_name_that_the_terminal_lacks(tmp_path: Path) -> None:
    place = tmp_path / "möd 空"
    place.symlink_to(REPOSITORY / "core" / "engine" / "bundled" / "demo")
    done = engine("plan", os.fsencode(place), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"m\\xf6d \\u7a7a" in done.stdout
