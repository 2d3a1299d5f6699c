"""The arithmetic of PPO against numbers worked by hand, a naive double loop, and padding that must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.kl import kl_k1, kl_k3
from training.ppo import objectives
from training.rewards.scorers import combine_scores

F64 = {"dtype": torch.float64}


def ragged(lengths: list[int], width: int | None = None) -> torch.Tensor:
    width = width or max(lengths)
    return torch.tensor([[1.0] * n + [0.0] * (width - n) for n in lengths], **F64)


def test_whitening_is_over_the_masked_tokens_of_the_whole_batch() -> None:
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 98.0, 97.0]], **F64)
    mask = ragged([2, 1], 3)
    # mean 2, biased variance 2/3
    white = objectives.whiten(values, mask)
    step = 1 / math.sqrt(2 / 3)
    assert white.tolist() == [pytest.approx([-step, 0, 0], abs=1e-6), pytest.approx([step, 0, 0], abs=1e-6)]


def test_the_score_stands_at_the_last_token_and_the_penalty_at_all() -> None:
    log_ratio = torch.tensor([[0.5, -1.0, 7.0], [2.0, 7.0, 7.0]], **F64)
    rewards = objectives.token_rewards(torch.tensor([3.0, -1.0], **F64), log_ratio, ragged([2, 1], 3), beta=0.1)
    assert rewards.tolist() == [pytest.approx([-0.05, 3.1, 0.0]), pytest.approx([-1.2, 0.0, 0.0])]


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [5.0, 0.0, 0.0, 0.0]), (4, [0.0, 0.0, 0.0, 5.0])],
    ids=["end first", "full length, no end"],
)
def test_the_score_finds_the_end_of_any_reply(length: int, expected: list[float]) -> None:
    zeros = torch.zeros(1, 4, **F64)
    rewards = objectives.token_rewards(torch.tensor([5.0], **F64), zeros, ragged([length], 4), beta=0.1)
    assert rewards.tolist() == [expected]


def test_advantages_of_a_reply_worked_by_hand() -> None:
    # γ = 1, λ = 0.5; rewards 0, 0, 1; values 0.2, 0.4, 0.6
    # δ₂ = 1 − 0.6 = 0.4; δ₁ = 0.6 − 0.4 = 0.2; δ₀ = 0.4 − 0.2 = 0.2
    # A₂ = 0.4; A₁ = 0.2 + 0.5·0.4 = 0.4; A₀ = 0.2 + 0.5·0.4 = 0.4; the value after the end is not read
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]], **F64), torch.tensor([[0.2, 0.4, 0.6, 9.0]], **F64)
    advantages, returns = objectives.generalized_advantages(rewards, values, ragged([3], 4), 1.0, 0.5)
    assert advantages.tolist() == [pytest.approx([0.4, 0.4, 0.4, 0.0])]
    assert returns.tolist() == [pytest.approx([0.6, 0.8, 1.0, 0.0])]


def naive_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    found = []
    for t in range(len(rewards)):
        total = 0.0
        for k in range(t, len(rewards)):
            following = values[k + 1] if k + 1 < len(rewards) else 0.0
            total += (gamma * lam) ** (k - t) * (rewards[k] + gamma * following - values[k])
        found.append(total)
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_advantages_equal_a_naive_double_loop(lengths: list[int], gamma: float, lam: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = ragged(lengths, max(lengths) + 2)
    rewards, values = (torch.randn(mask.shape, generator=generator, **F64) for _ in range(2))
    advantages, returns = objectives.generalized_advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        expected = naive_advantages(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        assert advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-9)
        assert returns[row, :length].tolist() == pytest.approx(
            [a + v for a, v in zip(expected, values[row, :length].tolist(), strict=True)], abs=1e-9
        )
        assert not advantages[row, length:].any() and not returns[row, length:].any()


def test_with_lambda_one_a_return_is_the_sum_of_what_follows() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]], **F64)
    _, returns = objectives.generalized_advantages(rewards, torch.randn(1, 3, **F64), ragged([3]), 1.0, 1.0)
    assert returns.tolist() == [pytest.approx([7.0, 6.0, 4.0])]


def test_the_other_replies_to_a_prompt_are_the_baseline() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0], **F64)
    assert objectives.leave_one_out(rewards, 3).tolist() == pytest.approx([-3.0, -1.5, 4.5, -1.5, -1.5, 3.0])


def test_the_policy_loss_worked_by_hand() -> None:
    # ratios 1.5, 0.5, 1.5, 0.5 with advantages 1, 1, −1, −1, held within 0.8 and 1.2:
    # 1: max(−1.5, −1.2) = −1.2, clipped    2: max(−0.5, −0.8) = −0.5
    # 3: max(1.5, 1.2) = 1.5                4: max(0.5, 0.8) = 0.8, clipped;     the sum 0.6 over 8 tokens
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5, 3.0]], **F64).log().requires_grad_()
    old, advantages = torch.zeros(1, 5, **F64), torch.tensor([[1.0, 1.0, -1.0, -1.0, 9.0]], **F64)
    found = objectives.policy_loss(new, old, advantages, ragged([4], 5), tokens=8, clip_low=0.2, clip_high=0.2)
    assert found.loss.item() == pytest.approx(0.6 / 8)
    assert found.clip_count.item() == 2
    # k3 of the new policy from the old: r − 1 − log r
    expected = 2 * (1.5 - 1 - math.log(1.5)) + 2 * (0.5 - 1 - math.log(0.5))
    assert found.kl_sum.item() == pytest.approx(expected)
    found.loss.backward()
    # Only unclipped tokens move: d(−A·r)/d log π = −A·r
    assert new.grad is not None
    assert new.grad.tolist() == [pytest.approx([0.0, -0.5 / 8, 1.5 / 8, 0.0, 0.0])]


def test_the_upper_clip_can_be_wider_than_the_lower() -> None:
    new, zeros = torch.tensor([[1.25]], **F64).log(), torch.zeros(1, 1, **F64)
    ones = torch.ones(1, 1, **F64)
    assert objectives.policy_loss(new, zeros, ones, ones, 1, 0.2, 0.28).clip_count.item() == 0
    assert objectives.policy_loss(new, zeros, ones, ones, 1, 0.2, 0.2).clip_count.item() == 1


def test_before_any_update_the_ratio_is_one_and_the_gradient_the_plain_policy_gradient() -> None:
    new = torch.randn(2, 3, **F64).requires_grad_()
    advantages, mask = torch.randn(2, 3, **F64), ragged([3, 2])
    found = objectives.policy_loss(new, new.detach(), advantages, mask, 5, 0.2, 0.2)
    found.loss.backward()
    assert found.kl_sum.item() == 0 and found.clip_count.item() == 0
    assert new.grad is not None
    torch.testing.assert_close(new.grad, -advantages * mask / 5)


def test_a_ratio_beyond_all_bounds_stays_finite() -> None:
    new, old = torch.tensor([[500.0]], **F64), torch.tensor([[-500.0]], **F64)
    ones = torch.ones(1, 1, **F64)
    found = objectives.policy_loss(new, old, -ones, ones, 1, 0.2, 0.2)
    assert math.isfinite(found.loss.item()) and math.isfinite(found.kl_sum.item())


def test_the_value_loss_worked_by_hand() -> None:
    # returns 1, old 0, new 0.5: free error 0.25, held at 0.2 error 0.64 → the worse counts; new −0.1: 1.21 both
    new, old = torch.tensor([[0.5, -0.1, 7.0]], **F64), torch.zeros(1, 3, **F64)
    found = objectives.value_loss(new, old, torch.ones(1, 3, **F64), ragged([2], 3), tokens=2, clip=0.2)
    assert found.loss.item() == pytest.approx(0.5 * (0.64 + 1.21) / 2)
    assert found.clip_count.item() == 1
    free = objectives.value_loss(new, old, torch.ones(1, 3, **F64), ragged([2], 3), tokens=2, clip=None)
    assert free.loss.item() == pytest.approx(0.5 * (0.25 + 1.21) / 2)


@pytest.mark.parametrize("split", [1, 2])
def test_micro_batches_add_up_to_the_minibatch(split: int) -> None:
    """The trap: a mean per micro-batch weighs the tokens of short replies more."""
    mask = ragged([5, 1, 2])
    new, old, advantages, returns = (torch.randn(3, 5, **F64) for _ in range(4))
    tokens = int(mask.sum())
    whole = objectives.policy_loss(new, old, advantages, mask, tokens, 0.2, 0.2).loss
    whole += objectives.value_loss(new, old, returns, mask, tokens, 0.2).loss
    parts = torch.zeros((), **F64)
    for part in (slice(0, split), slice(split, 3)):
        parts += objectives.policy_loss(new[part], old[part], advantages[part], mask[part], tokens, 0.2, 0.2).loss
        parts += objectives.value_loss(new[part], old[part], returns[part], mask[part], tokens, 0.2).loss
    assert parts.item() == pytest.approx(whole.item())


def test_further_padding_changes_nothing() -> None:
    mask = ragged([3, 1])
    new, old, advantages, returns = (torch.randn(2, 3, **F64) for _ in range(4))

    def figures(pad: int) -> list[torch.Tensor]:
        def wide(values: torch.Tensor) -> torch.Tensor:
            return torch.cat([values, torch.full((2, pad), 50.0, **F64)], 1)

        m = torch.cat([mask, torch.zeros(2, pad, **F64)], 1)
        gae = objectives.generalized_advantages(wide(returns), wide(old), m, 0.9, 0.8)
        return [
            *objectives.policy_loss(wide(new), wide(old), wide(advantages), m, 4, 0.2, 0.2),
            *objectives.value_loss(wide(new), wide(old), wide(returns), m, 4, 0.2),
            objectives.whiten(wide(advantages), m)[:, :3],
            objectives.explained_variance(wide(new), wide(returns), m),
            objectives.token_rewards(torch.tensor([1.0, 2.0], **F64), wide(new), m, 0.1)[:, :3],
            *(part[:, :3] for part in gae),
        ]

    for narrow, wide in zip(figures(0), figures(4), strict=True):
        torch.testing.assert_close(narrow, wide)


def test_the_two_estimates_of_the_divergence_agree_with_the_exact_one() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1], **F64), torch.tensor([0.4, 0.4, 0.2], **F64)
    log_ratio = kl_k1(policy.log(), reference.log())
    exact = (policy * log_ratio).sum().item()
    assert (policy * kl_k3(log_ratio)).sum().item() == pytest.approx(exact)
    assert (kl_k3(log_ratio) >= 0).all()
    assert kl_k3(torch.tensor([math.log(2)], **F64)).item() == pytest.approx(0.5 - 1 + math.log(2))


def test_beta_follows_the_divergence_and_never_jumps() -> None:
    assert objectives.adapted_beta(0.1, 6.0, 6.0, 64, 1000) == 0.1
    assert objectives.adapted_beta(0.1, 6.6, 6.0, 100, 1000) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert objectives.adapted_beta(0.1, 600.0, 6.0, 100, 1000) == pytest.approx(0.1 * 1.02)
    assert objectives.adapted_beta(0.1, 0.0, 6.0, 100, 1000) == pytest.approx(0.1 * 0.98)


def test_explained_variance_of_a_perfect_a_useless_and_a_harmful_value() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 50.0]], **F64), ragged([3], 4)
    for values, expected in [([1.0, 2.0, 3.0, 0.0], 1.0), ([5.0, 5.0, 5.0, 0.0], 0.0), ([3.0, 2.0, 1.0, 0.0], -3.0)]:
        found = objectives.explained_variance(torch.tensor([values], **F64), returns, mask)
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_scores_are_combined_as_asked() -> None:
    scores = torch.tensor([[1.0, 4.0], [3.0, 4.0]], **F64)
    assert combine_scores(scores, "mean").tolist() == [2.0, 4.0]
    assert combine_scores(scores, "worst").tolist() == [1.0, 4.0]
    assert combine_scores(scores, "uncertain", 0.5).tolist() == [1.5, 4.0]
