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

    Shapes: ``ids`` (row, position); ``places`` (row, token), the position whose hidden state predicts that token of
    the reply; ``targets`` and ``mask`` (row, token), the reply's tokens and which of them are real.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor
    mask: Tensor


def make_batch(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], pad: int, device: Any = "cpu"
) -> ReplyBatch:
    """Return token ids of prompts and replies as one padded batch; a reply has at least one token."""
    import torch

    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    width, longest = max(map(len, rows)), max(map(len, replies))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    targets = torch.tensor([[*reply, *[pad] * (longest - len(reply))] for reply in replies])
    mask = (torch.arange(longest) < torch.tensor([[len(reply)] for reply in replies])).float()
    starts = torch.tensor([[len(prompt) - 1] for prompt in prompts])
    places = (starts + torch.arange(longest)).clamp(max=width - 1)
    return ReplyBatch(ids.to(device), places.to(device), targets.to(device), mask.to(device))


def flat_places(places: Tensor, width: int) -> Tensor:
    """Return places (row, token) as indices into the flattened (row × position), same shape."""
    import torch

    return places + width * torch.arange(len(places), device=places.device)[:, None]


def gather_states(states: Tensor, places: Tensor) -> Tensor:
    """Return the states (row, token, hidden) of states (row, position, hidden) at places (row, token)."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))


def scatter_tokens(values: Tensor, real: Tensor) -> Tensor:
    """Put the values (n,) of the n real tokens into the shape of ``real`` (row, token); 0 elsewhere."""
    return values.new_zeros(real.shape).masked_scatter(real, values)
