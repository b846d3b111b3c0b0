"""Digests: equal exactly where all tokens before are equal and belong to the same owner."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from engine.kvcache.prefix import PrefixHasher
from engine.plugin.request import MultimodalItem

TOKENS = st.lists(st.integers(0, 2), max_size=12)


def digests(
    hasher: PrefixHasher, tokens: list[int], root: bytes | None = None, items: tuple[MultimodalItem, ...] = ()
) -> list[bytes]:
    made: list[bytes] = []
    start = hasher.root(None, None) if root is None else root
    hasher.extend(made, start, tokens, items, len(tokens) // hasher.block_size)
    return made


@given(TOKENS, TOKENS)
def test_equal_digests_mean_equal_beginnings(one: list[int], other: list[int]) -> None:
    hasher = PrefixHasher(2)
    for index, (a, b) in enumerate(zip(digests(hasher, one), digests(hasher, other), strict=False)):
        end = 2 * (index + 1)
        assert (a == b) == (one[:end] == other[:end])


@given(TOKENS, st.integers(0, 6))
def test_digests_can_be_extended_step_by_step(tokens: list[int], first: int) -> None:
    hasher = PrefixHasher(2)
    made: list[bytes] = []
    for upto in (min(first, len(tokens) // 2), len(tokens) // 2):
        hasher.extend(made, hasher.root(None, None), tokens, (), upto)
    assert made == digests(hasher, tokens)


def test_adapter_and_salt_are_not_confused() -> None:
    hasher = PrefixHasher(2)
    owners = [(None, None), ("a", None), (None, "a"), ("a", "a"), ("", None), (None, ""), ("aa", None), ("a", "aa")]
    assert len({hasher.root(*owner) for owner in owners}) == len(owners)


def test_pictures_count_only_in_the_blocks_they_touch() -> None:
    hasher = PrefixHasher(2)
    tokens = [1] * 10
    plain = digests(hasher, tokens)
    one, other = (
        digests(hasher, tokens, items=(MultimodalItem("image", digest, 5, 2, {}),)) for digest in ("one", "other")
    )
    assert one[:2] == other[:2] == plain[:2]
    assert all(a != b != c != a for a, b, c in zip(plain[2:], one[2:], other[2:], strict=True))


def test_the_key_differs_between_processes() -> None:
    program = "from engine.kvcache.prefix import PrefixHasher; print(PrefixHasher(2).root(None, None).hex())"
    search = {"PYTHONPATH": ":".join(sys.path)}
    runs = {subprocess.run([sys.executable, "-c", program], env=search, capture_output=True).stdout for _ in range(2)}
    assert len(runs) == 2 and b"" not in runs


def test_large_token_ids() -> None:
    hasher = PrefixHasher(1, key=b"k")
    assert len(set(digests(hasher, [2**31 - 1, 2**31 - 1, 0]))) == 3
