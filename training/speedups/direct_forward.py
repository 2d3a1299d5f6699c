"""A forward pass that calls a decoder's layers directly, without the overhead of the model's own ``forward``.

The model's own forward looks for packed sequences, builds masks and wraps its output; on a small model that takes a
few percent of the time, and it holds Python's lock meanwhile. Here the decoding loop builds one mask for all tokens
to come. Used only for models whose output is the same either way.
"""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from training.models.loading import probe_tokens


def use_torch_rms_norms(model: Any) -> None:
    """Replace each fp32 RMS norm by ``torch.rms_norm``, one call instead of seven, where the results agree.

    A norm that takes more than the states, such as a gated one, is left as it is.
    """
    for norm in model.modules():
        weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
        if epsilon is None or not isinstance(weight, Tensor) or weight.ndim != 1 or weight.dtype != torch.float32:
            continue
        if len(signature(norm.forward).parameters) != 1:
            continue
        light = partial(torch.rms_norm, normalized_shape=weight.shape, weight=weight, eps=epsilon)
        probe = torch.linspace(-2, 3, 2 * len(weight), device=weight.device).view(2, -1)
        if torch.allclose(light(probe), norm(probe), rtol=1e-5, atol=1e-6):
            norm.forward = light


class DirectForward:
    """The embedding, layers and final norm of a causal model, called directly."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone  # parts are looked up at each call, because a later adapter may replace one

    @classmethod
    def of(cls, model: Any) -> DirectForward | None:
        """Return the direct forward of a model, or None where its output would differ."""
        config = model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        # Layers with a sliding window, or without attention, need masks of their own
        alike = set(kinds) == {"full_attention"} if kinds else not getattr(config, "sliding_window", None)
        if not alike or config._attn_implementation != "sdpa" or getattr(config, "final_logit_softcapping", None):
            return None
        ids = probe_tokens(model)
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
            try:
                direct_forward = cls(model.base_model)
                found = model.get_output_embeddings()(
                    direct_forward(ids, torch.arange(ids.shape[1], device=ids.device)[None])
                )
            except (AttributeError, TypeError, ValueError, RuntimeError):
                return None  # the model has other parts, or layers with another signature
        return direct_forward if torch.allclose(found, expected, rtol=1e-2, atol=1e-2) else None

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """Return the last hidden states (row, position, hidden) after the final norm.

        ``mask`` (row, 1, 1, position) is added to the attention of one new token per row. Without it attention is
        causal, so the rows must not be padded on the left.
        """
        backbone = self._backbone
        states = backbone.embed_tokens(ids)
        turned = backbone.rotary_emb(states, positions)
        for layer in backbone.layers:
            states = layer(
                states,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                position_embeddings=turned,
            )
        return backbone.norm(states)  # type: ignore[no-any-return]
