"""Attention over a packed row, registered with transformers as one of its implementations.

The prefixes that rows share see themselves, and the rest of each row sees its prefix and itself. On a CPU each prefix
and each suffix is a call of its own where their lengths differ so much that padding them would cost more than the
calls; else there is one call for all prefixes and one for all suffixes. A forward without a layout gets transformers'
own sdpa.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.forward.layout import Layout

PACKED = "packed_sdpa"  # the name of the implementation in transformers' registry
LAYOUT = "packed_layout"  # the keyword by which a model's layers hand the layout on


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention (1, N, heads, size) of one packed row; query, key and value are (1, heads, N, size).

    ValueError for what this attention cannot do: scores that are capped, sinks, a bias of positions.
    """
    if packed_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(f"packed attention does not know {name}")
    layout = packed_layout
    layout.windows.add(sliding_window)
    dtype = value.dtype  # under autocast rotated queries and keys are fp32
    # In bf16 the backward pass of the CPU's kernel takes three times what it takes in fp32
    inner = torch.float32 if value.device.type == "cpu" else dtype
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if value.device.type == "cpu" and layout.pays_by_row(query.shape[1] * query.shape[3]):
        query, key, value = query.to(inner), key.to(inner), value.to(inner)
        found = _attend_by_row(query, key, value, layout, sliding_window, **options)
        return found.transpose(1, 2).to(dtype), None
    rows = [states[0].transpose(0, 1).to(inner) for states in (query, key, value)]  # (N, heads, size)
    blocks = []
    suffix_query, suffix_key, suffix_value = (_Gather.apply(states, layout.suffixes) for states in rows)
    if layout.shares:
        prefix_query, prefix_key, prefix_value = (_Gather.apply(states, layout.prefixes) for states in rows)
        mask = layout.prefix_mask(sliding_window)
        first = _attend(prefix_query, prefix_key, prefix_value, mask, is_causal=mask is None, **options)
        blocks.append(first.flatten(0, 1))
        suffix_key = torch.cat([prefix_key.index_select(0, layout.group_of), suffix_key], 1)
        suffix_value = torch.cat([prefix_value.index_select(0, layout.group_of), suffix_value], 1)
    if layout.shares or sliding_window is not None:
        second = _attend(suffix_query, suffix_key, suffix_value, layout.suffix_mask(sliding_window), **options)
    else:  # padding on the right is seen by no real token
        second = _attend(suffix_query, suffix_key, suffix_value, None, is_causal=True, **options)
    blocks.append(second.flatten(0, 1))
    return torch.cat(blocks).index_select(0, layout.back)[None].to(dtype), None


def _attend_by_row(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None, **options: Any
) -> Tensor:
    """Attention (1, heads, N, size) for states of that shape: one call for each prefix and each suffix."""
    lengths = layout.segment_lengths
    queries, keys, values = (states.split(lengths, 2) for states in (query, key, value))
    found = []
    for segment, length in enumerate(lengths):
        before = layout.prefix_of[segment]
        own_key, own_value = keys[segment], values[segment]
        if before is not None:
            own_key = torch.cat([keys[before], own_key], 2)
            own_value = torch.cat([values[before], own_value], 2)
        plain = before is None and (window is None or window >= length)
        mask = None if plain else layout.segment_mask(segment, window)
        with torch.autocast(query.device.type, enabled=False):
            found.append(
                scaled_dot_product_attention(
                    queries[segment], own_key, own_value, attn_mask=mask, is_causal=plain, **options
                )
            )
    return torch.cat(found, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    """Attention for states (row, place, heads, size)."""
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if mask is not None and query.is_cuda:  # the fast kernels there take groups of heads only without a mask
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    with torch.autocast(query.device.type, enabled=False):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, **options).transpose(1, 2)


class _Gather(torch.autograd.Function):
    """``states[places]`` of (N, heads, size) states; places of padding repeat the first token."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.tokens = len(states)
        return states.index_select(0, places.flatten()).view(*places.shape, *states.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        to_states = gradient.new_zeros(ctx.tokens, *gradient.shape[2:])
        return to_states.index_add_(0, places.flatten(), gradient.flatten(0, 1)), None


def register() -> None:
    """Make the implementation known to transformers; its masks, where no layout is given, are those of sdpa."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
