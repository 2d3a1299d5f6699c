"""A base with a scalar head: where the head lies, and from which token its score is taken.

Transformers' sequence classifiers take the score at the last token whose id is not the pad id. Where the pad token is
the end token, as for every tokenizer without a pad of its own, that is the token before the end, while training on
roles (``training.ppo.backbone``) reads the end itself. Here the place comes from the attention mask, on every
architecture.

A head that plain transformers would read in another way (one that adds up over the tokens, or one on a base whose pad
is its end) is kept in a module of another name, ``studio_head.score``. Plain PEFT then refuses the adapter instead of
loading it and scoring something else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from feedback.errors import InvalidInput
from training.models.loading import HEAD, PROBE_WIDTH
from training.models.reward_heads import LastScore, Pooling, last_places, scalar_head

HOLDER = "studio_head"  # the module that holds a head which plain transformers would read in another way


def read_by_mask(model: Any, base: str, *, reads_end: bool = True) -> None:
    """Let a sequence classifier take its score at the last position of the attention mask.

    ``reads_end=False`` is the rule of reward models that were saved before: of these positions the last one whose id
    is not the pad id. InvalidInput for an architecture whose scores are not its head on the last hidden states.
    """
    if not isinstance(getattr(model, HEAD, None), nn.Linear):
        raise _unknown(model, base)
    pad = model.config.get_text_config().pad_token_id
    usual = model.forward

    def forward(input_ids: Tensor, attention_mask: Tensor | None = None, **rest: Any) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutputWithPast

        passed = {name: value for name, value in rest.items() if value is not None and name != "return_dict"}
        states = model.base_model(input_ids=input_ids, attention_mask=attention_mask, **passed).last_hidden_state
        scores = head_of(model)(states)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = last_places(real if reads_end else real.bool() & (input_ids != pad)).to(scores.device)
        rows = torch.arange(len(places), device=scores.device)
        return SequenceClassifierOutputWithPast(logits=scores[rows, places])

    model.forward = forward
    ids = torch.arange(PROBE_WIDTH, device=model.device) % model.get_input_embeddings().weight.shape[0]
    ids = ids[ids != pad][None]
    with torch.no_grad():
        own, expected = forward(ids).logits.float(), usual(input_ids=ids, use_cache=False).logits.float()
    if not torch.allclose(own, expected, rtol=1e-2, atol=1e-2):
        raise _unknown(model, base)


def needs_own_name(pooling: Pooling, tokenizer: Any) -> bool:
    """Whether plain transformers would read a head in another way than ``read_by_mask`` does."""
    return pooling != "last" or tokenizer.pad_token_id == tokenizer.eos_token_id


def place_head(model: Any, pooling: Pooling, *, own_name: bool) -> None:
    """Put the head asked for in the place of a classifier's linear head, with the weights that one has."""
    if pooling == "last" and not own_name:
        return
    weight = getattr(model, HEAD).weight
    head = LastScore(weight.shape[1]) if pooling == "last" else scalar_head(pooling, weight.shape[1], bias=False)
    head.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if not own_name:
        setattr(model, HEAD, head)
        return
    delattr(model, HEAD)
    holder = nn.Module()
    setattr(holder, HEAD, head)
    setattr(model, HOLDER, holder)


def head_of(model: Any) -> Any:
    """The head of a classifier, under whichever name it lies."""
    return getattr(getattr(model, HOLDER, model), HEAD)


def _unknown(model: Any, base: str) -> InvalidInput:
    return InvalidInput(
        f"The model {base!r} makes its scores in a way this trainer does not know ({type(model).__name__}). Choose a "
        "base of another architecture for the reward model."
    )
