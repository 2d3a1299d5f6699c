"""Estimators of the KL divergence from log-probabilities, in nats.

A log-ratio log π − log π_ref on what π drew estimates KL(π‖π_ref): per token, or per reply from the sums over its
tokens. See Schulman, "Approximating KL Divergence" (2020), for k1 and k3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOG_RATIO = 20.0  # e^20: a larger ratio only says that something is wrong, and would overflow

LogProbs = TypeVar("LogProbs", float, "Tensor")


def kl_k1(log_probs: LogProbs, ref_log_probs: LogProbs) -> LogProbs:
    """Return log π − log π_ref, of any one shape: the unbiased estimate of KL(π‖π_ref) on what π drew.

    Subtracted from the reward it gives the gradient of the KL; differentiated as a loss it does not. Single estimates
    can be negative.
    """
    return log_probs - ref_log_probs


def kl_k3(log_ratio: Tensor) -> Tensor:
    """Return r − 1 − log r with r = e^−log_ratio, of any shape: an estimate of the KL that is never negative.

    For metrics and for early stopping; in the reward it would bias the gradient.
    """
    bounded = (-log_ratio).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return bounded.exp() - 1 - bounded
