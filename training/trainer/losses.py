"""Losses of preferences as pure tensor arithmetic: rankings with ties, margins and wrong labels; SimPO.

Shapes: B rankings in a batch, K replies in the longest of them. Everything is in nats and in the dtype given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def ranking_loss(scores: Tensor, ranks: Tensor, margins: Tensor, smoothing: float = 0.0) -> Tensor:
    """Minus the log-likelihood of each ranking under Plackett-Luce, per choice made: (B,).

    ``scores`` (B, K) of the replies; ``ranks`` (B, K), 1 for the best, equal ranks tie, 0 for no reply at all;
    ``margins`` (B,), by how much a better reply is to lead. For two replies and no margin this is the pair loss
    ``-log sigmoid(better - worse)``. Ties are Efron's (1977): each tied reply is chosen from the group with its share
    of the group's weight, which pulls tied scores together and prefers none.

    ``smoothing`` is the share of wrong labels: that much weight goes to the rankings in which two neighbouring ranks
    are exchanged, for a pair to the pair turned round.
    """
    loss = _plackett_luce(scores, ranks, margins)
    if not smoothing:
        return loss
    swapped, exchanges = _swapped(scores, ranks, margins)
    return (1 - smoothing) * loss + smoothing * swapped / exchanges.clamp(min=1)


def _plackett_luce(scores: Tensor, ranks: Tensor, margins: Tensor) -> Tensor:
    import torch

    real = ranks > 0
    mine, other = ranks[:, :, None], ranks[:, None, :]  # (B, K, K): row i chooses from column j
    pair = real[:, :, None] & real[:, None, :]
    tied = pair & (mine == other)
    size = tied.sum(-1).clamp(min=1)
    earlier = (tied & torch.ones_like(tied).tril(-1)).sum(-1)  # tied replies already chosen
    share = torch.log1p(-earlier / size).to(scores.dtype)  # log of what is left of the tied group's weight
    weights = torch.full_like(scores[:, :, None].expand(-1, -1, scores.shape[1]), -torch.inf)
    weights = torch.where(tied, share[:, :, None].expand_as(weights), weights)
    weights = torch.where(pair & (other > mine), margins[:, None, None].expand_as(weights), weights)
    weights = torch.where(real[:, :, None], weights, torch.zeros_like(weights))  # no -inf rows: their gradient is nan
    terms = (scores[:, None, :] + weights).logsumexp(-1) - scores
    choices = (real.sum(-1) - 1).clamp(min=1)
    return (terms * real).sum(-1) / choices


def _swapped(scores: Tensor, ranks: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over neighbouring ranks of the loss with the two exchanged, and how many such exchanges there are: (B,)."""
    import torch

    total, exchanges = torch.zeros_like(margins), torch.zeros_like(margins)
    highest = int(ranks.max())
    level = _dense(ranks)
    for low in range(1, highest):
        there = (level == low).any(-1) & (level == low + 1).any(-1)
        turned = torch.where(level == low, low + 1, torch.where(level == low + 1, low, level))
        total = total + torch.where(there, _plackett_luce(scores, turned, margins), torch.zeros_like(total))
        exchanges = exchanges + there
    return total, exchanges


def _dense(ranks: Tensor) -> Tensor:
    """Ranks without gaps: 1, 1, 3 becomes 1, 1, 2; 0 stays 0."""
    import torch

    below = (ranks[:, None, :] > 0) & (ranks[:, None, :] < ranks[:, :, None])  # (B, K, K)
    first = ~((ranks[:, None, :] == ranks[:, :, None]) & torch.ones_like(below).tril(-1)).any(-1)  # (B, K)
    return torch.where(ranks > 0, (below & first[:, None, :]).sum(-1) + 1, ranks)


def simpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_length: Tensor, rejected_length: Tensor, *, beta: float, margin: float
) -> tuple[Tensor, Tensor]:
    """SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6): losses and the lead of the chosen replies, both (B,).

    Log-probabilities are sums over the reply; they are compared per token, times ``beta``, and no reference is needed.
    """
    from torch.nn.functional import logsigmoid

    lead = beta * (chosen / chosen_length - rejected / rejected_length)
    return -logsigmoid(lead - margin), lead
