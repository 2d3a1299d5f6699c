"""The arithmetic of policy optimisation: pure functions of tensors, proved with numbers worked by hand.

Shapes: ``(reply, token)`` for what happens at each token of a reply, right-padded, with a mask that is 1 on the
tokens of the reply, its end token included. Nothing here reads a padded place: what stands there is never a number
that counts, and no gradient flows through it. Logarithms are natural, so divergences are in nats.

Losses are sums divided by a token count that the caller gives: the count of the whole minibatch. Divided by its
own count, a micro-batch of short replies would weigh its tokens more than one of long replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from training.settings.train import Combination

MAX_LOG_RATIO = 20.0  # e^20: beyond it a ratio says only that something is wrong, and would overflow


class PolicyLoss(NamedTuple):
    """The clipped policy loss, with sums over tokens that a metric divides by the token count."""

    loss: Tensor
    clipped: Tensor
    divergence: Tensor


class ValueLoss(NamedTuple):
    """The clipped value loss, and how many tokens were clipped."""

    loss: Tensor
    clipped: Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the places where the mask is 1."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the masked places of the whole batch; 0 elsewhere.

    The variance is the biased one (divided by n), as in the first published code (Ziegler et al. 2019).
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * (variance + 1e-8).rsqrt() * mask


def divergence_k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Per token, log π − log π_ref on what π drew: unbiased for KL(π‖π_ref), and negative as often as chance has it.

    Subtracted from the reward it gives the gradient of the KL; differentiated as a loss it does not.
    """
    return log_probs - reference


def divergence_k3(log_ratio: Tensor) -> Tensor:
    """Per token, r − 1 − log r with r = e^−log_ratio: an estimate of the same KL that is never negative (Schulman).

    For showing and for stopping; in the reward it would bias the gradient.
    """
    bounded = (-log_ratio).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return bounded.exp() - 1 - bounded


def token_rewards(scores: Tensor, log_ratio: Tensor, mask: Tensor, beta: float) -> Tensor:
    """What each token earns: −β·k1 everywhere, and the reply's score at its last token.

    ``scores`` (reply,), ``log_ratio`` and ``mask`` (reply, token). A reply has at least one token, its end.
    """
    rewards = -beta * log_ratio * mask
    last = (mask.sum(1).long() - 1).clamp(min=0)
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (Schulman et al. 2016, eq. 16); (reply, token).

    ``values[:, t]`` is what was expected before token t was drawn; after the end it counts as 0. Returns are
    advantages plus values, before any whitening.
    """
    import torch

    values = values * mask
    advantages = torch.zeros_like(values)
    ahead = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        following = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(ahead)
        surprise = rewards[:, t] + gamma * following - values[:, t]
        ahead = (surprise + gamma * lam * ahead) * mask[:, t]
        advantages[:, t] = ahead
    return advantages, (advantages + values) * mask


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Each reply's reward less the mean reward of the other replies to its prompt (Ahmadian et al. 2024, eq. 7).

    ``rewards`` (reply,), the replies to one prompt next to each other, ``group`` of them.
    """
    by_prompt = rewards.view(-1, group)
    others = (by_prompt.sum(1, keepdim=True) - by_prompt) / (group - 1)
    return (by_prompt - others).reshape(-1)


def policy_loss(
    new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, tokens: int, low: float, high: float
) -> PolicyLoss:
    """The clipped surrogate of PPO (Schulman et al. 2017, eq. 7) on log-probabilities; (reply, token).

    The ratio is kept within 1 − low and 1 + high. ``tokens`` is the count of the whole minibatch. ``divergence``
    sums k3 of the new policy from the one that drew the replies.
    """
    log_ratio = ((new - old) * mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - low, 1 + high)
    loss = (free.maximum(held) * mask).sum() / tokens
    clipped = ((held > free) * mask).sum()
    return PolicyLoss(loss, clipped.detach(), (divergence_k3(-log_ratio.detach()) * mask).sum())


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, tokens: int, clip: float | None) -> ValueLoss:
    """Half the squared error of the value, or of the value held within ``clip`` of the old one if that is worse.

    ``clip`` None leaves the value free, as the warm-up needs it.
    """
    free = (new - returns) ** 2
    held = free if clip is None else (old + (new - old).clamp(-clip, clip) - returns) ** 2
    loss = 0.5 * (free.maximum(held) * mask).sum() / tokens
    return ValueLoss(loss, ((held > free) * mask).sum().detach())


def adapted_beta(beta: float, divergence: float, target: float, replies: int, horizon: int) -> float:
    """The KL coefficient after ``replies`` more replies (Ziegler et al. 2019, sec. 2.2): up when the divergence lies
    above its target, down when below, by at most 0.2·replies/horizon.

    ``divergence`` and ``target`` are nats per reply.
    """
    error = min(max(divergence / target - 1, -0.2), 0.2)
    return beta * (1 + error * replies / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """The share of the returns' variance that the values foretold: 1 is all, 0 no better than their mean."""
    mean = masked_mean(returns, mask)
    total = masked_mean((returns - mean) ** 2, mask)
    error = returns - values
    left = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    return 1 - left / (total + 1e-8)


def combined_scores(scores: Tensor, how: Combination, doubt: float = 0.5) -> Tensor:
    """One score per reply from several judges' (judge, reply), as ``rewards.scorers.combined`` makes one of a list.

    ``uncertain`` subtracts ``doubt`` times the variance over the judges (Coste et al. 2023, UWO).
    """
    if how == "worst":
        return scores.min(0).values
    mean = scores.mean(0)
    return mean if how == "mean" else mean - doubt * scores.var(0, unbiased=False)
