"""The language head at the tokens of replies alone, in the place of TRL's.

TRL's trainers ask a model for the log-probabilities of the tokens that have a label (``fused_lm_head=True``), and on a
CPU its kernel computes the logits of every token of the batch, padding and prompts too, and once more in the backward
pass. Same answers, at the labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import FusedCausalLMOutput

from training.forward.head import token_outputs

IGNORED = -100
# Settings of families whose heads scale or cap the logits: there TRL's own kernel stays
SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
AGREES = 1e-3  # nats; the same sums in another order


@contextmanager
def reply_head(model: Any) -> Iterator[bool]:
    """TRL's calls for log-probabilities are answered at their labels for the time of the block.

    The block is told whether they are; a head that scales its logits or is trained keeps TRL's kernel. ``model`` is the
    causal model itself, without an adapter's wrapper, after TRL gave it its kernel.
    """
    usual = model.forward
    own = vars(model).get("forward")
    try:
        if _plain(model):
            model.forward = MethodType(_answering(model, usual), model)
            if not _agrees(model, usual):
                model.forward = usual
        yield model.forward is not usual
    finally:
        vars(model).pop("forward", None)
        if own is not None:
            model.forward = own


def _answering(model: Any, usual: Any) -> Any:
    """The model's forward, with the head at the labels where TRL asks for log-probabilities."""

    @wraps(type(model).forward)  # its signature says what generation may hand over
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = kwargs.get("fused_lm_head") and kwargs.get("labels") is not None
        if not asked or kwargs.get("shift_labels") is not None or kwargs.get("output_router_logits"):
            return usual(*args, **kwargs)
        labels, items = kwargs.pop("labels"), kwargs.pop("num_items_in_batch", None)
        for name in ("fused_lm_head", "shift_labels"):
            kwargs.pop(name, None)
        states = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[:, :-1]
        return _reply_outputs(self.get_output_embeddings(), states, labels[:, 1:], items)

    return forward


def _reply_outputs(head: Any, states: Tensor, labels: Tensor, items: Any) -> FusedCausalLMOutput:
    """The outputs (B, T) for states (B, T, hidden) that each predict a label (B, T), zero where there is none."""
    mask = labels != IGNORED
    device = states.device.type
    products = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with torch.autocast(device, enabled=False):
        found = token_outputs(states[mask], labels[mask], head.weight, head.bias, products=products)

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    log_probs = spread(found.log_probs)
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / (mask.sum().clamp(min=1) if items is None else items),
        log_probs=log_probs,
        entropy=spread(found.entropy),
        mean_logits=spread(found.mean_logits),
        is_top1=spread(found.is_top1),
        label_mask=mask,
    )


def _plain(model: Any) -> bool:
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in SCALED)
    plain = (
        type(head) is nn.Linear and not any(one.requires_grad for one in head.parameters()) and not head._forward_hooks
    )
    return plain and not scaled and hasattr(model, "base_model")


def _agrees(model: Any, usual: Any) -> bool:
    """Whether both heads say the same of a few tokens, in eval mode and without gradients."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    ids = (torch.arange(24, device=model.device) * 7919 % vocabulary).view(2, 12)
    labels = ids.clone()
    labels[:, :5] = IGNORED
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "fused_lm_head": True}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found, expected = model(**given).log_probs, usual(**given).log_probs
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(was_training)
    return bool(torch.allclose(found.float(), expected.float(), atol=AGREES, rtol=AGREES))
