"""Blocks that are being computed right now, and who waits for them instead of computing them again."""

from __future__ import annotations

from typing import Generic, TypeVar

from engine.kvcache.table import BlockTable

W = TypeVar("W")


class Claims(Generic[W]):
    """A table claims the blocks that it is going to compute, until they are cached or it gives up.

    Either way the waiters wake and look again, so nobody waits for a block that nobody computes.
    """

    __slots__ = ("_owners", "_waiters", "_woken")

    def __init__(self) -> None:
        self._owners: dict[bytes, BlockTable] = {}
        self._waiters: dict[bytes, list[W]] = {}
        self._woken: list[W] = []

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._owners

    def claim(self, digest: bytes, owner: BlockTable) -> None:
        """``owner`` computes this block, unless another does already."""
        self._owners.setdefault(digest, owner)

    def settle(self, digest: bytes, owner: BlockTable) -> None:
        """``owner`` has computed the block, or will not."""
        if self._owners.get(digest) is owner:
            del self._owners[digest]
            self._woken.extend(self._waiters.pop(digest, ()))

    def wait(self, digest: bytes, waiter: W) -> None:
        """Wake ``waiter`` when the claim is settled."""
        self._waiters.setdefault(digest, []).append(waiter)

    def woken(self) -> list[W]:
        """Those who woke since the last call."""
        woken, self._woken = self._woken, []
        return woken

    def check(self) -> None:
        """Raise ``RuntimeError`` where a claim is nobody's, or somebody waits for nothing."""
        for digest, owner in self._owners.items():
            if digest not in owner.digests[owner.published : owner.claimed]:
                raise RuntimeError("claims: a block is claimed by a table that does not compute it")
        if self._waiters.keys() - self._owners.keys():
            raise RuntimeError("claims: somebody waits for a block that nobody computes")
