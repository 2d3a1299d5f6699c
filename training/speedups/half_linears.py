"""Matrix products in bf16 on CPUs that compute them so: about half the time of fp32 for a model of 0.1 B and more.

Only the operands and the result of each linear layer are rounded. The sum over layers, norms, attention, keys and
values stay in fp32, so the distribution of the next token is nearer to that of fp32 than a model wholly in bf16 is,
which is what a GPU draws with. On SmolLM2-135M it is 0.0007 nats per token away, wholly in bf16 it would be 0.0013.
Unlike in fp32, the rounding depends on what is computed beside a row: a reply is the same for the same seed only in the
same company. So this is for drawing many replies, never for log-probabilities or gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.forward.precision import cpu_multiplies_bf16

FEWEST_PARAMETERS = 50_000_000  # a smaller model spends its time elsewhere
LINEAR_SHARE = 0.5  # of the parameters at least, else the products are not where the time goes


def half_pays(model: Any) -> bool:
    """Whether bf16 makes drawing from this model faster by a fifth or more, by what it is and where it lies."""
    parameters = list(model.parameters())
    if any(one.device.type != "cpu" for one in parameters) or not cpu_multiplies_bf16():
        return False
    count = sum(one.numel() for one in parameters)
    linear = sum(one.numel() for one in {id(module.weight): module.weight for module in _linears(model)}.values())
    return count >= FEWEST_PARAMETERS and linear >= LINEAR_SHARE * count


@contextmanager
def half_linears(model: Any) -> Iterator[None]:
    """Compute every fp32 linear layer in bf16 for the time of the block, from a copy of its weights.

    The weights themselves are left as they are. What is changed in them during the block is not heeded.
    """
    copies: dict[int, Tensor] = {}
    changed = []
    try:
        for module in _linears(model):
            if "forward" in vars(module):
                continue  # somebody else's already
            weight = copies.setdefault(id(module.weight), module.weight.detach().to(torch.bfloat16))
            bias = None if module.bias is None else module.bias.detach().to(torch.bfloat16)
            module.forward = partial(_product, weight=weight, bias=bias)
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _linears(model: Any) -> list[Any]:
    return [one for one in model.modules() if type(one) is nn.Linear and one.weight.dtype == torch.float32]


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(states.to(torch.bfloat16), weight, bias).float()
