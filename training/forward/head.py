"""Log-probabilities of single tokens under a language head, with the gradient made in the forward pass.

Chunk by chunk, logits (chunk, V) become log-probabilities, and where a gradient is wanted, the gradient of each
log-probability with respect to its hidden state: the row of the token in the head's weight minus the mean row under the
softmax. Nothing of size (tokens, V) is kept or computed twice. The head is frozen and gets no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

LOGITS_AT_ONCE = 1 << 23  # numbers; 32 MB in fp32


@dataclass(frozen=True)
class TokenOutputs:
    """What the head says of N tokens, each (N,) in fp32; only ``log_probs`` have a gradient."""

    log_probs: Tensor
    entropy: Tensor
    mean_logits: Tensor
    is_top1: Tensor


def token_outputs(
    states: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    products: torch.dtype | None = None,
) -> TokenOutputs:
    """What a head with ``weight`` (V, H) and ``bias`` (V,) says of the tokens ``targets`` (N,) after ``states`` (N, H).

    Matrix products are computed in ``products``, or in the precision of the weight. A logit of 20 in bf16 is off by up
    to 0.06, and its log-probability would be too, so the logits of the target and of the likeliest token are computed
    again in the precision of the weight. What remains is the rounding of the other logits, which mostly cancels.
    """
    wanted = torch.is_grad_enabled() and states.requires_grad
    log_probs, entropy, mean_logits, is_top1 = _TokenOutputs.apply(states, targets, weight, bias, products, wanted)
    return TokenOutputs(log_probs, entropy, mean_logits, is_top1.bool())


class _TokenOutputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        products: torch.dtype | None,
        wanted: bool,
    ) -> tuple[Tensor, ...]:
        count = len(states)
        found = torch.zeros(4, count, dtype=torch.float32, device=states.device)
        rows = weight if products is None else weight.to(products)
        offset = None if bias is None else bias.to(rows.dtype)
        to_states = torch.empty_like(states, dtype=rows.dtype) if wanted else None
        size = max(1, LOGITS_AT_ONCE // len(weight))
        for begin in range(0, count, size):
            part = slice(begin, begin + size)
            target = targets[part, None]
            logits = linear(states[part].to(rows.dtype), rows, offset).float()
            found[2, part] = logits.mean(1)
            top, likeliest = logits.max(1, keepdim=True)
            if rows.dtype is not weight.dtype:
                _refine(logits, torch.cat([target, likeliest], 1), states[part], weight, bias)
            logits.sub_(top)
            picked = logits.gather(1, target).squeeze(1)
            weights = logits.exp()
            total = weights.sum(1)
            found[0, part] = picked - total.log()
            mean = torch.bmm(weights[:, None], logits[:, :, None]).flatten() / total
            found[1, part] = total.log() - mean
            found[3, part] = (likeliest == target).squeeze(1).float()
            if to_states is not None:
                mean_row = (weights.to(rows.dtype) @ rows) / total[:, None]
                to_states[part] = weight[targets[part]] - mean_row
        if to_states is not None:
            ctx.save_for_backward(to_states)
            ctx.dtype = states.dtype
        outputs = tuple(found)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (to_states,) = ctx.saved_tensors
        return to_states.to(ctx.dtype) * gradients[0][:, None].to(ctx.dtype), None, None, None, None, None


def _refine(logits: Tensor, tokens: Tensor, states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Put the logits (n, V) of some tokens (n, k) in the precision of the weight (V, H) in their places."""
    exact = torch.bmm(weight[tokens], states.to(weight.dtype)[:, :, None]).squeeze(2)
    if bias is not None:
        exact = exact + bias[tokens]
    logits.scatter_(1, tokens, exact.to(logits.dtype))
