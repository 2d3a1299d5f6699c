"""RMS norms as one node of the graph: what a backward pass needs of one is its input and one number per token.

Written out, the norm of a Llama keeps its normalized input as well, and its backward pass is ten operations of the size
of the states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

AGREES = 1e-5


@contextmanager
def fused_norms(model: Any) -> Iterator[int]:
    """Fuse the fp32 RMS norms of a decoder's states during the block; yields how many there are.

    Under autocast those inside layers, which linear layers read, give what autocast would make of their output; the
    last one, which the head reads, stays in fp32.
    """
    size = model.config.get_text_config().hidden_size
    norms = [norm for norm in model.modules() if _fits(norm, size)]
    last = getattr(model.base_model, "norm", None)
    for norm in norms:
        norm.forward = partial(_forward, norm, norm.forward, norm is not last)
    try:
        yield len(norms)
    finally:
        for norm in norms:
            del norm.forward


def _fits(norm: Any, size: int) -> bool:
    """Whether a module is a plain RMS norm over so many numbers, frozen and in fp32."""
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(epsilon, float) or not isinstance(weight, Tensor) or weight.shape != (size,):
        return False
    if weight.dtype is not torch.float32 or weight.requires_grad or "forward" in vars(norm):
        return False
    if len(signature(norm.forward).parameters) != 1:
        return False
    probe = torch.linspace(-2, 3, 2 * size, device=weight.device).view(2, -1)
    with torch.no_grad():
        return torch.allclose(_RmsNorm.apply(probe, weight, epsilon, None), norm(probe), rtol=AGREES, atol=AGREES)


def _forward(norm: Any, usual: Any, rounds: bool, states: Tensor) -> Tensor:
    if states.dtype is not torch.float32:
        return usual(states)  # type: ignore[no-any-return]
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if rounds and torch.is_autocast_enabled(device) else None
    return _RmsNorm.apply(states, norm.weight, norm.variance_epsilon, dtype)  # type: ignore[no-any-return]


class _RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x²) + epsilon) * weight`` over the last dimension of x, in ``dtype`` or that of x."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype | None) -> Tensor:
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        inverse = length.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, inverse)
        return (states * inverse).mul_(weight).to(dtype or states.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        states, weight, inverse = ctx.saved_tensors
        weighted = gradients[0] * weight
        along = (weighted * states).sum(-1, keepdim=True)
        along.mul_(inverse).mul_(inverse).div_(-states.shape[-1])
        return weighted.addcmul_(states, along).mul_(inverse), None, None, None
