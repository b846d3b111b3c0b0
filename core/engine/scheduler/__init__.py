"""Which sequences compute how many tokens in each step; pure Python."""

from __future__ import annotations

from engine.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
