"""Proposes what followed the last token before; a draft proposer named example."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import Draft, Proposer, hookimpl

ENGINE_API = 1


class LastOccurrence(Proposer):
    """Stateless: the tokens so far say everything."""

    def propose(self, sequences: Sequence[tuple[int, Sequence[int]]], count: int) -> list[Draft]:
        drafts = []
        for seq, tokens in sequences:
            before = next((at for at in range(len(tokens) - 2, -1, -1) if tokens[at] == tokens[-1]), None)
            if before is not None:
                drafts.append(Draft(seq, list(tokens[before + 1 : before + 1 + count])))
        return drafts


@hookimpl
def engine_create_proposer() -> Proposer:
    return LastOccurrence()
