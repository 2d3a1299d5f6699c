"""What an iteration of PPO tells of itself: the points of its curves, from its replies and from its steps.

Every mean over tokens is over real tokens alone, never over padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.ppo import objectives

if TYPE_CHECKING:
    from torch import Tensor

    from training.ppo.rollouts import Rollout


@dataclass
class Step:
    """What one pass over an iteration's replies added up to; sums are over ``tokens``."""

    sums: dict[str, float]
    tokens: int = 0
    minibatches: int = 0

    def mean(self, name: str) -> float:
        """A sum per token."""
        return self.sums[name] / max(1, self.tokens)

    def norm(self, role: str) -> float:
        """The mean length of a role's gradients."""
        return self.sums[f"{role}_norm"] / max(1, self.minibatches)


def rollout_figures(rollout: Rollout) -> dict[str, float]:
    """Of the replies: reward, score, distance from the parent in nats per reply, entropy, ends and lengths."""
    mask = rollout.mask
    lengths = sorted(len(reply) for reply in rollout.replies)
    log_ratio = objectives.divergence_k1(rollout.log_probs, rollout.reference)
    figures = {
        "reward": float(rollout.judged.mean()),
        "score": float(rollout.scores.mean()),
        "kl": float(rollout.distances.mean()),
        "kl_k3": float((objectives.divergence_k3(log_ratio) * mask).sum(1).mean()),
        "entropy": float(objectives.masked_mean(rollout.entropy, mask)),
        "end_rate": sum(rollout.ended) / len(rollout.ended),
        "tokens": sum(lengths) / len(lengths),
        "tokens_p95": float(lengths[int(0.95 * (len(lengths) - 1))]),
    }
    if len(rollout.judged) > 1:
        figures["reward_spread"] = float(rollout.judged.std(0, unbiased=False).mean())
    return figures


def policy_figures(step: Step) -> dict[str, float]:
    """Of the policy's steps: loss, share of clipped tokens, how far it moved, and its gradient's length."""
    means = {"policy_loss": step.mean("policy_loss"), "clip_rate": step.mean("clipped")}
    return means | {"divergence": step.mean("divergence"), "policy_gradient_norm": step.norm("policy")}


def value_figures(step: Step, rollout: Rollout, returns: Tensor) -> dict[str, float]:
    """Of the value's steps, and how much of the returns it had foretold before them."""
    means = {"value_loss": step.mean("value_loss"), "value_clip_rate": step.mean("value_clipped")}
    explained = float(objectives.explained_variance(rollout.values, returns, rollout.mask))
    return means | {"value_gradient_norm": step.norm("value"), "explained_variance": explained}


def group_figures(rollout: Rollout, per_prompt: int) -> dict[str, float]:
    """Of replies measured by one another: the share of prompts whose replies all score alike and teach nothing."""
    groups = rollout.scores.view(-1, per_prompt)
    return {"equal_group_rate": float((groups == groups[:, :1]).all(1).float().mean())}
