"""LoRA in one matrix product: the adapter is added to a copy of the weight, which every forward then uses.

In addition to the base's product, PEFT's layer needs two thin ones, a scaling and a sum over the whole output, forward
and backward; on a small model these take a third of the time of the layer itself. Here ``W + s·B·A`` is computed when
an adapter becomes active. Forward is one product with it; backward needs one more for the input's gradient and four
thin ones for A and B. Exact up to rounding. While B is zero, as at its start, the copy equals the weight, so a new
policy equals its reference bit for bit.

For fp32 only: in 16 bits the sum would round the adapter away.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from training.forward.lora import is_plain


class FusedLora:
    """Replacement for a LoRA layer's forward wherever its active adapter is plain LoRA over an fp32 layer."""

    def __init__(self, layer: LoraLinear) -> None:
        self._layer = layer
        self._base: nn.Linear = layer.base_layer  # type: ignore[assignment]
        self._usual = layer.forward
        self._current: tuple[Tensor, Tensor, Tensor, float] | None = None
        layer.forward = self._forward  # type: ignore[method-assign]

    @staticmethod
    def fits(layer: Any) -> bool:
        """Return whether the layer is LoRA over a plain linear layer in fp32."""
        base = layer.base_layer
        return type(layer) is LoraLinear and type(base) is nn.Linear and base.weight.dtype is torch.float32

    def invalidate(self) -> None:
        """Compute the fused weight again at the next forward: the adapter changed, or another is active now."""
        self._current = None

    def _forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        if layer.disable_adapters or layer.merged or args or kwargs:
            return self._usual(x, *args, **kwargs)
        fused = self._current or self._fuse()
        if fused is None:
            return self._usual(x)
        if not torch.is_grad_enabled():
            return nn.functional.linear(x, fused[0], self._base.bias)
        return _Product.apply(x, self._base.bias, *fused)  # type: ignore[no-any-return]

    def _fuse(self) -> tuple[Tensor, Tensor, Tensor, float] | None:
        """Compute the fused weight (out, in) and return it with A, B and the scale; None for more than plain LoRA."""
        layer = self._layer
        name = layer.active_adapters[0]
        if not is_plain(layer, name):
            return None
        down: Any = layer.lora_A[name].weight
        up: Any = layer.lora_B[name].weight
        scale = layer.scaling[name]
        with torch.no_grad():
            weight = torch.addmm(self._base.weight, up, down, alpha=scale)
        self._current = (weight, down, up, scale)  # two threads may both compute it; the results are equal
        return self._current


class _Product(torch.autograd.Function):
    """``x`` (…, in) times a fused weight (out, in); gradients for ``x`` and for A (rank, in) and B (out, rank)."""

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
