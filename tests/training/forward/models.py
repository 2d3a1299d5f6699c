"""Small models and batches with shared prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.training.tiny_models import config_of

PROMPT = [20 + i * 7 % 40 for i in range(30)]
OTHER = [90 + i * 11 % 60 for i in range(9)]
ROWS = [[*PROMPT, 30, 31, 32], [*OTHER, 40], [*PROMPT, 33, 1], [*OTHER, 41, 42, 43, 44], [50, 51, 52]]


def tiny(family: str = "llama", kind: Any = None, **settings: Any) -> Any:
    """A causal model of a family with random weights, frozen and in eval mode."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = (kind or AutoModelForCausalLM).from_config(config_of(family, **settings))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:  # random weights attend to everything alike: sharpen them, so that masks matter
            parameter.mul_(6.0)
    return model.eval()


def padded(rows: list[list[int]] = ROWS, *, left: bool = False, pad: int = 1) -> tuple[Tensor, Tensor]:
    """A batch of token ids (B, T) and its mask; the pad token may be one that rows hold."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask
