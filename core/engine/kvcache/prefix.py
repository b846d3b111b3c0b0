"""Digests of blocks: a keyed hash chain, so that equal digests mean equal tokens from the first one on."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence as Many
from hashlib import blake2b

import msgspec

from engine.plugin.request import MultimodalItem

DIGEST_BYTES = 16


class PrefixHasher:
    """Digests of full blocks.

    The key is random per process, so nobody outside can construct two prompts that collide.
    """

    __slots__ = ("_key", "block_size")

    def __init__(self, block_size: int, key: bytes | None = None) -> None:
        self.block_size = block_size
        self._key = os.urandom(32) if key is None else key

    def root(self, adapter: str | None, salt: str | None) -> bytes:
        """Where the chains of one adapter and one cache salt begin."""
        return self._digest(msgspec.msgpack.encode((adapter, salt)))

    def extend(
        self, digests: list[bytes], root: bytes, tokens: Many[int], items: Many[MultimodalItem], upto: int
    ) -> None:
        """Append the digests of blocks ``len(digests)`` … ``upto - 1`` of ``tokens``; they must be full."""
        size = self.block_size
        parent = digests[-1] if digests else root
        for start in range(len(digests) * size, upto * size, size):
            content = parent + array("q", tokens[start : start + size]).tobytes()
            if items:
                content += self._touching(items, start)
            parent = self._digest(content)
            digests.append(parent)

    def _touching(self, items: Many[MultimodalItem], start: int) -> bytes:
        end = start + self.block_size
        touching = [(i.digest, start - i.start) for i in items if i.start < end and i.start + i.length > start]
        return msgspec.msgpack.encode(touching) if touching else b""

    def _digest(self, content: bytes) -> bytes:
        return blake2b(content, digest_size=DIGEST_BYTES, key=self._key).digest()
