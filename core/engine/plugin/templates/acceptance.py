"""Keeps a drafted token with probability min(1, target / draft); named example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.plugin import AcceptanceMethod, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class RejectionSampling(AcceptanceMethod):
    """The result is distributed as the target's own samples are (Leviathan et al., 2023)."""

    def accept(self, target: Tensor, draft: Sequence[int], draft_probabilities: Tensor | None, uniforms: Sequence[float]) -> list[int]:
        accepted: list[int] = []
        for place, token in enumerate(draft):
            proposed = 1.0 if draft_probabilities is None else float(draft_probabilities[place, token])
            if uniforms[2 * place] * proposed >= float(target[place, token]):
                rest = target[place].clone()
                if draft_probabilities is None:
                    rest[token] = 0
                else:
                    rest = (rest - draft_probabilities[place]).clamp(min=0)
                return [*accepted, pick(rest, uniforms[2 * place + 1])]
            accepted.append(token)
        return [*accepted, pick(target[len(draft)], uniforms[-1])]


def pick(weights: Tensor, uniform: float) -> int:
    """The index at which the running sum passes that share of the whole."""
    sums = weights.double().cumsum(0)
    return min(int((sums <= uniform * sums[-1]).sum()), int(weights.nonzero().max()))


@hookimpl
def engine_create_acceptance() -> AcceptanceMethod:
    return RejectionSampling()
