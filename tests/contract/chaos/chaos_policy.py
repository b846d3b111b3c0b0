"""A scheduling policy that fails for some priorities."""

from __future__ import annotations

import sys
import time

from engine.plugin import SchedulingPolicy, hookimpl

ENGINE_API = 1


class Chaos(SchedulingPolicy):
    def key(self, request):
        match request.priority:
            case 1:
                raise ValueError("a bug")
            case 2:
                return None
            case 3:
                return "not to be compared with tuples"
            case 4:
                time.sleep(3600)
            case 5:
                sys.exit(3)
        return (request.arrival, request.id)

    def check(self, priority):
        if priority == 9:
            raise ValueError("a bug")


@hookimpl
def engine_create_policy():
    return Chaos()
