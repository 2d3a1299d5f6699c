"""What is read of a top layer that works only there is what it always made, forward and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.ppo.test_backbone import batch, gradients, learn, make_backbone, policy_log_probs
from training.ppo.backbone import Backbone
from training.speedups.sparse_mlp import SparseMlp


def make_both(base: Path, pooling: Any) -> tuple[Backbone, Backbone]:
    """The same backbone twice: as it is, and with the sparse MLP."""
    made = []
    for sparing in (False, True):
        backbone, _ = make_backbone(base, "policy", "value", "reward_0")
        for number, role in enumerate(("value", "reward_0")):
            weight = torch.randn(1, backbone.model.config.hidden_size, generator=torch.Generator().manual_seed(number))
            backbone.add_head(role, weight, bias=0.5, pooling=pooling)
        if sparing:
            backbone.use_sparse_mlp()
            assert backbone.sparse_mlp is not None
        made.append(backbone)
    return made[0], made[1]


def count_places(backbone: Backbone) -> list[int]:
    """How many positions each forward of the top layer's MLP works on, from now on."""
    seen: list[int] = []
    backbone.layers[-1].mlp.gate_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0][..., 0].numel()))
    return seen


@pytest.mark.parametrize("pooling", ["last", "sum", "mean"])
def test_what_is_read_is_the_same(tiny_base: Path, pooling: str) -> None:
    usual, sparing = make_both(tiny_base, pooling)
    made, found, learning = batch(), [], ("policy", "value")
    lengths = torch.tensor([9, 5, 9])  # of the prompts with their replies
    for backbone in (usual, sparing):
        for role in learning:
            learn(backbone, role)
        found.append({(role, name): one for role in learning for name, one in gradients(backbone, role).items()})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, atol=1e-4, rtol=1e-3)
    with usual.role("reward_0") as reward:
        scores = reward.scores(made.ids, lengths)
    with sparing.role("reward_0") as reward:
        torch.testing.assert_close(reward.scores(made.ids, lengths), scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pooling", "value", "score"), [("last", 11, 3), ("sum", 20, 23), ("mean", 20, 23)])
def test_it_works_at_no_other_place(tiny_base: Path, pooling: str, value: int, score: int) -> None:
    """3 replies of 4, 2 and 5 tokens to 5, 3 and 4: a token of a reply is foretold one place before its own."""
    _, backbone = make_both(tiny_base, pooling)
    seen, made = count_places(backbone), batch()
    with backbone.role("policy") as policy:
        policy.log_probs(made)
    with backbone.role("value") as actor:
        actor.values(made)
    with backbone.role("reward_0") as reward:
        reward.scores(made.ids, torch.tensor([9, 5, 9]))
    assert seen == [11, value, score]


def test_states_asked_for_everywhere_are_made_everywhere(tiny_base: Path) -> None:
    usual, sparing = make_both(tiny_base, "last")
    for role in ("policy", "value"):
        with usual.role(role) as one, sparing.role(role) as other:
            assert torch.equal(one.hidden(batch().ids), other.hidden(batch().ids))


class _Layer(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp


class _Choosing(nn.Module):
    """As a mixture of experts that tells beside its result which expert it took."""

    def forward(self, states: Tensor) -> tuple[Tensor, str]:
        return states + 1, "the first"


def test_an_mlp_that_tells_more_than_its_result_is_left_alone() -> None:
    layer, states = _Layer(_Choosing()), torch.zeros(2, 3, 4)
    top = SparseMlp(layer)
    with top.read_at(torch.tensor([1])):
        made, told = layer.mlp(states)
    assert torch.equal(made, states + 1) and told == "the first" and not top.fits


def test_roles_run_an_mlp_that_tells_more_than_its_result_once(tiny_base: Path) -> None:
    """Not first for the places that are read and then, when its answer is seen, for all."""
    backbone, _ = make_backbone(tiny_base, "policy")
    layer, mlp = backbone.layers[-1], backbone.layers[-1].mlp
    usual, own = layer.forward, mlp.forward
    told: list[int] = []
    mlp.forward = lambda states: (own(states), told.append(1))

    def unpacking(*args: Any, **kwargs: Any) -> Any:
        outer, mlp.forward = mlp.forward, lambda states: outer(states)[0]
        try:
            return usual(*args, **kwargs)
        finally:
            mlp.forward = outer

    layer.forward = unpacking
    backbone.use_sparse_mlp()
    assert backbone.sparse_mlp is None
    told.clear()
    policy_log_probs(backbone)
    assert len(told) == 1


def test_an_mlp_that_is_given_more_than_the_states_is_left_alone() -> None:
    """As Bloom's, which adds the residual itself."""

    class Adding(nn.Module):
        def forward(self, states: Tensor, residual: Tensor) -> Tensor:
            return states + residual

    layer, states = _Layer(Adding()), torch.ones(2, 3, 4)
    top = SparseMlp(layer)
    with top.read_at(torch.tensor([1])):
        assert torch.equal(layer.mlp(states, states), states + 1) and not top.fits


def test_an_mlp_that_looks_at_other_positions_is_found_out(tiny_base: Path) -> None:
    backbone, _ = make_backbone(tiny_base, "policy")
    mlp = backbone.layers[-1].mlp
    usual = mlp.forward
    mlp.forward = lambda states: usual(states).cumsum(1)
    backbone.use_sparse_mlp()
    assert backbone.sparse_mlp is None
