"""A decoder's layers one after another, and nothing of what the model's own forward does around them at every call.

That forward looks for packed sequences, builds masks and wraps what it gives back; on a small model that is some per
cent of its time, and in threads it holds Python's lock meanwhile. A mask is made once here, by who decodes, for all
tokens to come. Only for models found to make the same either way.
"""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from training.models.loading import probe_tokens


def lighten_norms(model: Any) -> None:
    """Give each RMS norm in fp32 torch's own, one call in place of seven, where it makes the same.

    A norm that takes more than the states, as one with a gate does, stays as it is.
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


class LeanForward:
    """The embedding, layers and final norm of a causal model, called directly."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone  # its parts are asked for at each call: an adapter that comes later may replace one

    @classmethod
    def of(cls, model: Any) -> LeanForward | None:
        """The lean forward of a model, or None where it would not be the same."""
        config = model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        # Layers with a window, or without attention, want masks of their own
        alike = set(kinds) == {"full_attention"} if kinds else not getattr(config, "sliding_window", None)
        if not alike or config._attn_implementation != "sdpa" or getattr(config, "final_logit_softcapping", None):
            return None
        ids = probe_tokens(model)
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
            try:
                lean = cls(model.base_model)
                found = model.get_output_embeddings()(lean(ids, torch.arange(ids.shape[1], device=ids.device)[None]))
            except (AttributeError, TypeError, ValueError, RuntimeError):
                return None  # it has other parts, or layers that are called in another way
        return lean if torch.allclose(found, expected, rtol=1e-2, atol=1e-2) else None

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """The last hidden states (row, position, width) after the final norm.

        ``mask`` (row, 1, 1, position) is added to the attention of one new token per row; without it attention is
        causal, and nothing is padded on the left.
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
