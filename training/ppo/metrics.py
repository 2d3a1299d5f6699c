"""Metrics of one PPO iteration: points of the curves, from its replies and from its optimizer steps.

Every mean over tokens is over real tokens only, never over padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.models.kl import kl_k1, kl_k3
from training.ppo import objectives

if TYPE_CHECKING:
    from torch import Tensor

    from training.ppo.rollouts import Rollout


@dataclass
class Step:
    """Sums over one iteration's optimizer steps; those of losses, clips and KL are over ``tokens``."""

    sums: dict[str, float]
    tokens: int = 0
    minibatches: int = 0

    def mean(self, name: str) -> float:
        """Return a sum per token."""
        return self.sums[name] / max(1, self.tokens)

    def norm(self, role: str) -> float:
        """Return the mean gradient norm of a role."""
        return self.sums[f"{role}_norm"] / max(1, self.minibatches)


def rollout_figures(rollout: Rollout) -> dict[str, float]:
    """Return the replies' reward, score, KL from the parent (nats per reply), entropy (nats), end rate and lengths."""
    mask = rollout.mask
    lengths = sorted(len(reply) for reply in rollout.replies)
    log_ratio = kl_k1(rollout.log_probs, rollout.reference)
    figures = {
        "reward": float(rollout.judged.mean()),
        "score": float(rollout.scores.mean()),
        "kl": float(rollout.reply_kl.mean()),
        "kl_k3": float((kl_k3(log_ratio) * mask).sum(1).mean()),
        "entropy": float(objectives.masked_mean(rollout.entropy, mask)),
        "end_rate": sum(rollout.ended) / len(rollout.ended),
        "tokens": sum(lengths) / len(lengths),
        "tokens_p95": float(lengths[int(0.95 * (len(lengths) - 1))]),
    }
    if len(rollout.judged) > 1:
        figures["reward_spread"] = float(rollout.judged.std(0, unbiased=False).mean())
    return figures


def policy_figures(step: Step) -> dict[str, float]:
    """Return the policy's loss, share of clipped tokens, KL from the old policy per token, and gradient norm."""
    means = {"policy_loss": step.mean("policy_loss"), "clip_rate": step.mean("clip_count")}
    return means | {"divergence": step.mean("kl_sum"), "policy_gradient_norm": step.norm("policy")}


def value_figures(step: Step, rollout: Rollout, returns: Tensor) -> dict[str, float]:
    """Return the value's loss, share of clipped tokens and gradient norm, and its explained variance before."""
    means = {"value_loss": step.mean("value_loss"), "value_clip_rate": step.mean("value_clip_count")}
    explained = float(objectives.explained_variance(rollout.values, returns, rollout.mask))
    return means | {"value_gradient_norm": step.norm("value"), "explained_variance": explained}


def group_figures(rollout: Rollout, per_prompt: int) -> dict[str, float]:
    """Return the share of prompts whose replies all have the same score, and so no advantage."""
    groups = rollout.scores.view(-1, per_prompt)
    return {"equal_group_rate": float((groups == groups[:, :1]).all(1).float().mean())}
