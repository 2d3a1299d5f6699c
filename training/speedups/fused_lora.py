"""LoRA in one product: the adapter is added into a copy of the weight once, and then every forward is the bare layer's.

Beside the base's product, PEFT's layer takes two thin ones, a scaling and a sum over the whole output, forward and
backward; on a small model these take as long as a third of the layer itself. Here ``W + s·B·A`` is worked out when a
role begins to act, forward is one product with it, and backward takes one more for what came in and four thin ones for
A and B. Exact but for rounding; with B at its start, zero, the copy is the very weight, so a new policy is its
reference bit for bit.

For fp32 alone: in 16 bits the sum would round the adapter away.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class MergedLora:
    """Takes a LoRA layer's forward over, wherever its active adapter is plain LoRA over an fp32 layer."""

    def __init__(self, layer: LoraLinear) -> None:
        self._layer = layer
        self._base: nn.Linear = layer.base_layer  # type: ignore[assignment]
        self._usual = layer.forward
        self._acting: tuple[Tensor, Tensor, Tensor, float] | None = None
        layer.forward = self._forward  # type: ignore[method-assign]

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether the layer is LoRA over a plain linear layer in fp32."""
        base = layer.base_layer
        return type(layer) is LoraLinear and type(base) is nn.Linear and base.weight.dtype is torch.float32

    def forget(self) -> None:
        """The adapter may have changed, or another may act now: work the weight out again at the next forward."""
        self._acting = None

    def _forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        if layer.disable_adapters or layer.merged or args or kwargs:
            return self._usual(x, *args, **kwargs)
        acting = self._acting or self._merge()
        if acting is None:
            return self._usual(x)
        if not torch.is_grad_enabled():
            return nn.functional.linear(x, acting[0], self._base.bias)
        return _Product.apply(x, self._base.bias, *acting)  # type: ignore[no-any-return]

    def _merge(self) -> tuple[Tensor, Tensor, Tensor, float] | None:
        """The merged weight and what it is made of; None where the active adapter is more than a sum."""
        layer = self._layer
        name = layer.active_adapters[0]
        if not self._is_plain(name):
            return None
        down: Any = layer.lora_A[name].weight
        up: Any = layer.lora_B[name].weight
        scale = layer.scaling[name]
        with torch.no_grad():
            weight = torch.addmm(self._base.weight, up, down, alpha=scale)
        self._acting = (weight, down, up, scale)  # two threads may both come here, and work out the same
        return self._acting

    def _is_plain(self, name: str) -> bool:
        layer = self._layer
        return (
            len(layer.active_adapters) == 1
            and name in layer.lora_A
            and name not in layer.lora_variant  # DoRA and others that are more than a sum
            and isinstance(layer.lora_dropout[name], nn.Identity)
            and layer.lora_B[name].bias is None
        )


class _Product(torch.autograd.Function):
    """``x`` (…, in) times a merged weight (out, in); gradients for ``x`` and for A (rank, in) and B (out, rank)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, weight: Tensor, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, down, up = ctx.saved_tensors
        to_x = gradient @ weight if ctx.needs_input_grad[0] else None
        to_down = to_up = None
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            flat, given = gradient.flatten(0, -2), x.flatten(0, -2)
            to_down = (flat @ up).mul_(ctx.scale).t() @ given
            to_up = flat.t() @ (given @ down.t()).mul_(ctx.scale)
        return to_x, None, None, to_down, to_up, None
