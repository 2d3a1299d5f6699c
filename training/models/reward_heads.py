"""Scalar heads of a reward model: what turns hidden states into one score.

The usual head reads the last token, which a large model has learnt to make a summary of what went before. A small
one has not: there the evidence stays where it was written, and a head that adds up what it reads at every token
learns the same taste from far fewer pairs (figures in tests/benchmarks/README.md).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "sum", "mean"]
USUAL_LENGTH = 32  # tokens; a sum is divided by it, so that both poolings want the same step size


class SummedScore(nn.Module):
    """The sum of a linear score over all tokens up to each one.

    Hidden states (row, position, width) give (row, position, 1) in fp32; whoever picks the last real position, as a
    sequence classifier does, gets the sum over the whole sequence. Sequences are padded on the right. The prompt's
    share is the same for two replies to it and cancels in their difference.
    """

    def __init__(self, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    def forward(self, states: Tensor) -> Tensor:
        """The sums (row, position, 1); the bias is added once, not at every token."""
        with torch.autocast(states.device.type, enabled=False):  # sums in bf16 would be rounded to eight bits
            scores = nn.functional.linear(states.float(), self.weight.float()).cumsum(1) / USUAL_LENGTH
        return scores if self.bias is None else scores + self.bias.float()


class MeanScore(SummedScore):
    """The mean of a linear score over all tokens up to each one: as ``SummedScore``, but length alone pays nothing."""

    def forward(self, states: Tensor) -> Tensor:
        """The means (row, position, 1)."""
        with torch.autocast(states.device.type, enabled=False):
            scores = nn.functional.linear(states.float(), self.weight.float()).cumsum(1)
        read = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=scores.dtype)
        means = scores / read[None, :, None]
        return means if self.bias is None else means + self.bias.float()


class LastScore(nn.Module):
    """A linear score of each token by itself; no ``nn.Linear``, so that no adapter is put on it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))

    def forward(self, states: Tensor) -> Tensor:
        """The scores (row, position, 1) of hidden states (row, position, width)."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states, self.weight.to(states.dtype))


def scalar_head(pooling: Pooling, width: int, *, bias: bool = True) -> Any:
    """A head that reads hidden states of so many numbers as ``pooling`` says."""
    if pooling == "last":
        return nn.Linear(width, 1, bias=bias)
    return (SummedScore if pooling == "sum" else MeanScore)(width, bias=bias)


def pooling_of(head: Any) -> Pooling:
    """How a head reads."""
    return "mean" if isinstance(head, MeanScore) else "sum" if isinstance(head, SummedScore) else "last"


def last_places(mask: Tensor) -> Tensor:
    """The place of the last position with a 1 in each row of a mask (row, position): (row,)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (mask.bool() * positions).argmax(1)
