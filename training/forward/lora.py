"""A linear layer and its LoRA adapter as one node of the graph.

PEFT's layer adds up the outputs of three layers, each kept for the backward pass; here the thin products are added to
the wide one in place, and only the input and its thin projection (N, rank) are kept. The base's weight may be bf16
while the adapter's are fp32: products are computed in the precision of the base, gradients are summed up in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear


@contextmanager
def fused_lora(model: Any) -> Iterator[int]:
    """Fuse every plain LoRA layer of a model during the block; yields how many there are."""
    layers = [layer for layer in model.modules() if type(layer) is LoraLinear and type(layer.base_layer) is nn.Linear]
    layers = [layer for layer in layers if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward)  # type: ignore[method-assign]
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Any, usual: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = layer.base_layer
    if args or kwargs or layer.merged or not x.is_floating_point():
        return usual(x, *args, **kwargs)  # type: ignore[no-any-return]
    if layer.disable_adapters:
        return linear(x.to(base.weight.dtype), base.weight, base.bias)
    name = layer.active_adapters[0]
    if not is_plain(layer, name):
        return usual(x)  # type: ignore[no-any-return]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.autocast(x.device.type, enabled=False):  # its products choose their precision themselves
        return _LoraProduct.apply(x, base.weight, base.bias, down, up, layer.scaling[name])  # type: ignore[no-any-return]


def is_plain(layer: Any, name: str) -> bool:
    """Whether a LoRA layer computes ``x W' + s x A' B'`` by one adapter and no more, over a frozen base."""
    return (
        len(layer.active_adapters) == 1
        and name in layer.lora_A
        and name not in layer.lora_variant  # DoRA and others that are more than a sum
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and layer.lora_B[name].bias is None
        and not any(parameter.requires_grad for parameter in layer.base_layer.parameters())
    )


class _LoraProduct(torch.autograd.Function):
    """``x W' + s x A' B'`` for x (…, in), W (out, in), A (rank, in), B (out, rank), in the precision of W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        dtype = weight.dtype
        rows = x.to(dtype).flatten(0, -2)
        low, high = down.to(dtype), up.to(dtype)
        thin = rows @ low.t()
        out = linear(rows, weight, None if bias is None else bias.to(dtype))
        out.addmm_(thin, high.t(), alpha=scale)
        ctx.save_for_backward(rows, thin, weight, low, high)
        ctx.scale, ctx.dtype, ctx.adapter_dtype = scale, x.dtype, down.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, thin, weight, low, high = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2).to(weight.dtype)
        to_thin = (gradient @ high).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(to_thin, low).to(ctx.dtype).view(*gradients[0].shape[:-1], -1)
        to_low = (to_thin.t() @ rows).to(ctx.adapter_dtype) if ctx.needs_input_grad[3] else None
        to_high = (gradient.t() @ thin).mul_(ctx.scale).to(ctx.adapter_dtype) if ctx.needs_input_grad[4] else None
        return to_x, None, None, to_low, to_high, None
