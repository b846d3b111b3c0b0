"""The nearest name."""

from __future__ import annotations

import pytest

from engine.args.spelling import nearest

NAMES = ["--load-format", "--max-model-len", "--port", "--seed", "--model", "--config-format"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--lod-format", "--load-format"), ("--max-modle-len", "--max-model-len"), ("--prot", "--port"), ("--SEED", "--seed"),
        ("--modle", "--model"), ("--zzzz", None), ("--x", None), ("", None),
    ],
)  # fmt: skip
def test_nearest(word, name):
    assert nearest(word, NAMES) == name


def test_of_nothing_nothing():
    assert nearest("word", []) is None
