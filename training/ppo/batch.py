"""A batch of prompts and replies as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReplyBatch:
    """Prompts with their replies, padded on the right.

    ``ids`` (row, position); ``places`` (row, token) the position whose hidden state foretells that token of the
    reply; ``targets`` and ``mask`` (row, token) the reply's tokens and which of them are real.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor
    mask: Tensor


def make_batch(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], pad: int, device: Any = "cpu"
) -> ReplyBatch:
    """Token ids of prompts and replies as one padded batch; a reply has at least one token."""
    import torch

    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    width, longest = max(map(len, rows)), max(map(len, replies))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    targets = torch.tensor([[*reply, *[pad] * (longest - len(reply))] for reply in replies])
    mask = (torch.arange(longest) < torch.tensor([[len(reply)] for reply in replies])).float()
    starts = torch.tensor([[len(prompt) - 1] for prompt in prompts])
    places = (starts + torch.arange(longest)).clamp(max=width - 1)
    return ReplyBatch(ids.to(device), places.to(device), targets.to(device), mask.to(device))


def _numbered(places: Tensor, width: int) -> Tensor:
    """Places (row, token) as numbers of row × position."""
    import torch

    return places + width * torch.arange(len(places), device=places.device)[:, None]


def _picked(states: Tensor, places: Tensor) -> Tensor:
    """The hidden states (row, token, width) at the given places (row, token)."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))


def _spread(values: Tensor, real: Tensor) -> Tensor:
    """Values of the real tokens put back into (row, token), 0 elsewhere."""
    return values.new_zeros(real.shape).masked_scatter(real, values)
