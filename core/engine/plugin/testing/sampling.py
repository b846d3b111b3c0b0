"""Suites of what works beside the sampler: logits processors, draft proposers, acceptance methods."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest

from engine.plugin.contracts.generation import AcceptanceMethod, LogitsProcessor, Proposer
from engine.plugin.facts import AttentionSpec, ModelInfo
from engine.plugin.testing.base import PluginContract

_VOCAB = 64


class LogitsProcessorContract(PluginContract):
    """``arguments``: what a request gives; ``wrong``: arguments that must be refused."""

    kind_name = "logits_processor"
    arguments: ClassVar[dict[str, Any]] = {}
    wrong: ClassVar[dict[str, Any]] = {"no_such_argument_zz": 1}

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        return {"options": dict(self.options)}

    def test_sound_arguments_pass(self, plugin: LogitsProcessor) -> None:
        assert plugin.validate(dict(self.arguments)) is None

    def test_wrong_arguments_are_refused_with_a_reason(self, plugin: LogitsProcessor) -> None:
        reason = plugin.validate(dict(self.wrong))
        assert isinstance(reason, str) and reason, f"{self.wrong} were accepted"

    def test_a_row_stays_a_row(self, plugin: LogitsProcessor) -> None:
        for seed in range(8):
            logits = _row(seed)
            after = plugin.begin(dict(self.arguments)).apply(logits.clone(), [1, 2, 3], [4, 5], dict(self.arguments))
            assert (after.shape, after.dtype) == (logits.shape, logits.dtype)
            assert not after.isnan().any(), "finite logits became NaN"
            assert after.isfinite().any(), "no token is left"

    def test_the_same_row_gives_the_same_result(self, plugin: LogitsProcessor) -> None:
        import torch

        runs = []
        for _ in range(2):
            processor = plugin.begin(dict(self.arguments))
            runs.append(processor.apply(_row(1), [1, 2, 3, 1, 2], [1, 2], dict(self.arguments)))
        assert torch.equal(*runs)

    def test_sequences_do_not_share_state(self, plugin: LogitsProcessor) -> None:
        import torch

        alone = _outputs(plugin.begin(dict(self.arguments)), self.arguments)
        first, second = plugin.begin(dict(self.arguments)), plugin.begin(dict(self.arguments))
        mixed = []
        for step in range(6):
            mixed.append(first.apply(_row(step), [1, 2], list(range(step)), dict(self.arguments)))
            second.apply(_row(step + 50), [9], list(range(30, 30 + step)), dict(self.arguments))
        assert all(torch.equal(a, b) for a, b in zip(alone, mixed, strict=True))


class ProposerContract(PluginContract):
    """Drafts are token ids of the model's vocabulary, at most as many as were asked for, and only for the sequences asked."""

    kind_name = "speculation"

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        info = ModelInfo("LlamaForCausalLM", vocab_size=_VOCAB, hidden_size=64, layers=(spec, spec), max_model_len=256, logits_size=_VOCAB)
        return {"info": info, "options": dict(self.options)}

    def test_drafts_are_bounded(self, plugin: Proposer) -> None:
        sequences = [(7, [1, 2, 3, 4, 1, 2, 3]), (8, [5]), (9, list(range(40)))]
        for count in (1, 3, 8):
            drafts = plugin.propose(sequences, count)
            assert {draft.seq for draft in drafts} <= {7, 8, 9}
            assert len({draft.seq for draft in drafts}) == len(drafts), "two drafts for one sequence"
            for draft in drafts:
                assert len(draft.token_ids) <= count
                assert all(0 <= token < _VOCAB for token in draft.token_ids)

    def test_no_sequences_no_drafts(self, plugin: Proposer) -> None:
        assert plugin.propose([], 4) == []

    def test_ended_sequences_are_forgotten(self, plugin: Proposer) -> None:
        fresh = plugin.propose([(1, [5, 6, 7])], 3)
        plugin.propose([(1, [1, 2, 1, 2, 1, 2])], 3)
        plugin.forget([1, 999])
        assert plugin.propose([(1, [5, 6, 7])], 3) == fresh


class AcceptanceContract(PluginContract):
    """Capabilities: ``exact`` (the first token's distribution is the target's, whatever the draft)."""

    kind_name = "acceptance"
    capabilities = frozenset({"exact"})
    supports: ClassVar[frozenset[str]] = frozenset({"exact"})

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        return {"options": dict(self.options)}

    def test_accepted_tokens_are_the_drafts_beginning(self, plugin: AcceptanceMethod) -> None:
        import torch

        for seed in range(50):
            generator = torch.Generator().manual_seed(seed)
            target = torch.rand(4, 8, generator=generator).softmax(-1)
            draft = torch.randint(8, (3,), generator=generator).tolist()
            accepted = plugin.accept(target, draft, None, torch.rand(7, generator=generator).tolist())
            assert 1 <= len(accepted) <= 4
            assert accepted[:-1] == draft[: len(accepted) - 1]
            assert all(0 <= token < 8 for token in accepted)

    def test_a_certain_target_is_followed(self, plugin: AcceptanceMethod) -> None:
        import torch

        target = torch.nn.functional.one_hot(torch.tensor([3, 5, 1, 2]), 8).float()
        uniforms = [0.5] * 7
        assert plugin.accept(target, [3, 5, 1], None, uniforms) == [3, 5, 1, 2]
        assert plugin.accept(target, [3, 4, 1], None, uniforms) == [3, 5]

    def test_the_distribution_is_the_targets(self, plugin: AcceptanceMethod) -> None:
        if "exact" not in self.supports:
            pytest.skip(f"{self.name} does not claim 'exact'")
        import torch

        generator = torch.Generator().manual_seed(0)
        target, proposal = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]), torch.tensor([[0.1, 0.8, 0.1]])
        counts: Counter[int] = Counter()
        for _ in range(20_000):
            draft = torch.multinomial(proposal[0], 1, generator=generator).tolist()
            counts[plugin.accept(target, draft, proposal, torch.rand(3, generator=generator).tolist())[0]] += 1
        shares = [counts[token] / 20_000 for token in range(3)]
        assert max(abs(share - float(p)) for share, p in zip(shares, target[0], strict=True)) < 0.02, shares


def _row(seed: int) -> Any:
    import torch

    return torch.randn(_VOCAB, generator=torch.Generator().manual_seed(seed))


def _outputs(processor: LogitsProcessor, arguments: dict[str, Any]) -> list[Any]:
    return [processor.apply(_row(step), [1, 2], list(range(step)), dict(arguments)) for step in range(6)]
