"""Waiting for blocks that another sequence computes."""

from __future__ import annotations

import pytest

from engine.kvcache.claims import Claims
from engine.kvcache.table import BlockTable


def test_waiters_wake_when_the_owner_is_done_and_only_then() -> None:
    claims: Claims[str] = Claims()
    owner, other = BlockTable([], b""), BlockTable([], b"")
    claims.claim(b"x", owner)
    claims.claim(b"x", other)
    claims.wait(b"x", "waiter")
    claims.settle(b"x", other)
    assert claims.woken() == [] and b"x" in claims
    claims.settle(b"x", owner)
    assert claims.woken() == ["waiter"] and b"x" not in claims
    assert claims.woken() == []


def test_check_notices_a_waiter_without_anybody_to_wait_for() -> None:
    claims: Claims[str] = Claims()
    claims.wait(b"x", "waiter")
    with pytest.raises(RuntimeError, match="nobody computes"):
        claims.check()


def test_check_notices_a_claim_that_its_owner_does_not_have() -> None:
    claims: Claims[str] = Claims()
    claims.claim(b"x", BlockTable([], b""))
    with pytest.raises(RuntimeError, match="does not compute it"):
        claims.check()
