"""The equations of PPO as pure functions of tensors, tested against numbers worked by hand.

Shapes: ``(reply, token)`` for quantities at each token of a reply, right-padded, with a mask that is 1 on the tokens
of the reply, its end token included. Values at padded places never affect a result, and no gradient flows through
them. Logarithms are natural, so divergences are in nats.

Losses are sums divided by ``tokens``, the token count of the whole minibatch. Divided by its own count, a micro-batch
of short replies would weigh its tokens more than one of long replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from training.models.kl import MAX_LOG_RATIO, kl_k1, kl_k3

if TYPE_CHECKING:
    from torch import Tensor


class PolicyLoss(NamedTuple):
    """The clipped policy loss, the number of clipped tokens, and the sum over tokens of the KL from the old policy."""

    loss: Tensor
    clip_count: Tensor
    kl_sum: Tensor


class ValueLoss(NamedTuple):
    """The clipped value loss, and the number of clipped tokens."""

    loss: Tensor
    clip_count: Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` over the places where ``mask`` is 1; both of any one shape."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Scale ``values`` (reply, token) to mean 0 and variance 1 over the tokens of the whole batch; 0 at padded places.

    The variance is the biased one (divided by n), as in the first published code (Ziegler et al. 2019).
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * (variance + 1e-8).rsqrt() * mask


def token_rewards(scores: Tensor, log_ratio: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Return the reward of each token (reply, token): −β·k1, plus the reply's score at its last token.

    Shapes: ``scores`` (reply,), ``log_ratio`` and ``mask`` (reply, token). A reply has at least one token, its end.
    """
    rewards = -beta * log_ratio * mask
    last = (mask.sum(1).long() - 1).clamp(min=0)
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns by generalized advantage estimation (Schulman et al. 2016, eq. 16).

    ``values[:, t]`` is the value of the state from which token t was drawn; the value after the end is 0. Returns are
    advantages plus values, before any whitening.

    Shapes: all (reply, token).
    """
    import torch

    values = values * mask
    advantages = torch.zeros_like(values)
    last_gae = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(last_gae)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        last_gae = (delta + gamma * lam * last_gae) * mask[:, t]
        advantages[:, t] = last_gae
    return advantages, (advantages + values) * mask


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Return each reply's reward less the mean reward of the other replies to its prompt: (reply,).

    Ahmadian et al. 2024, eq. 7. ``rewards`` (reply,) holds ``group`` consecutive replies per prompt.
    """
    by_prompt = rewards.view(-1, group)
    baseline = (by_prompt.sum(1, keepdim=True) - by_prompt) / (group - 1)
    return (by_prompt - baseline).reshape(-1)


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    tokens: int,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """Return the clipped surrogate loss of PPO (Schulman et al. 2017, eq. 7).

    The ratio is clipped to [1 − clip_low, 1 + clip_high]. ``tokens`` is the count of the whole minibatch. ``kl_sum``
    sums k3 of the new policy from the old one, which drew the replies.

    Shapes: all tensors (reply, token); the results are scalars.
    """
    log_ratio = (kl_k1(log_probs, old_log_probs) * mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = (unclipped.maximum(clipped) * mask).sum() / tokens
    clip_count = ((clipped > unclipped) * mask).sum()
    return PolicyLoss(loss, clip_count.detach(), (kl_k3(-log_ratio.detach()) * mask).sum())


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, tokens: int, clip: float | None
) -> ValueLoss:
    """Return half the squared error of the value, or of the value clipped around the old one if that is larger.

    ``clip`` is the largest distance from the old value; None, as in the warm-up, does not clip.

    Shapes: all tensors (reply, token); the results are scalars.
    """
    unclipped = (values - returns) ** 2
    clipped = unclipped if clip is None else (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
    loss = 0.5 * (unclipped.maximum(clipped) * mask).sum() / tokens
    return ValueLoss(loss, ((clipped > unclipped) * mask).sum().detach())


def adapted_beta(beta: float, kl: float, target: float, replies: int, horizon: int) -> float:
    """Return the KL coefficient after ``replies`` more replies (Ziegler et al. 2019, sec. 2.2).

    It rises while the KL is above its target and falls while it is below, by at most 0.2·replies/horizon. ``kl`` and
    ``target`` are in nats per reply.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * replies / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return 1 − Var(returns − values) / Var(returns) over the tokens, a scalar.

    1 is perfect, 0 is no better than predicting the mean; it can be negative. Shapes: all (reply, token).
    """
    mean = masked_mean(returns, mask)
    total = masked_mean((returns - mean) ** 2, mask)
    error = returns - values
    residual = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    return 1 - residual / (total + 1e-8)
