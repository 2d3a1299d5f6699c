"""TRL's calls for log-probabilities get the same answers at the labels alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.training.forward.models import padded, tiny
from training.forward.reply_head import IGNORED, reply_head

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


def with_kernel(family: str = "llama", **settings: Any) -> Any:
    """A model that TRL has given its kernel."""
    model = tiny(family, **settings)
    add_fused_lm_head(model, outputs=OUTPUTS)
    return model


def asked() -> dict[str, Any]:
    """A call with labels on the replies alone."""
    ids, mask = padded()
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :9] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False, "fused_lm_head": True}


@pytest.mark.parametrize("tied", [False, True])
def test_it_answers_as_trl_does(tied: bool) -> None:
    model = with_kernel(tie_word_embeddings=tied)
    expected = model(**asked())
    with reply_head(model) as ours:
        assert ours
        found = model(**asked())
    for name in (*OUTPUTS, "loss"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.label_mask, expected.label_mask)


def test_a_batch_without_labels_has_a_loss_of_zero() -> None:
    model = with_kernel()
    call = asked()
    call["labels"] = torch.full_like(call["labels"], IGNORED)
    with reply_head(model):
        assert float(model(**call).loss) == 0.0


def test_every_other_call_is_the_models_own() -> None:
    model = with_kernel()
    ids, mask = padded()
    expected = model(input_ids=ids, attention_mask=mask, labels=ids)
    with reply_head(model):
        found = model(input_ids=ids, attention_mask=mask, labels=ids)
        assert torch.equal(model.generate(ids[:1], max_new_tokens=3), model.generate(ids[:1], max_new_tokens=3))
    assert torch.equal(found.loss, expected.loss) and torch.equal(found.logits, expected.logits)


def test_heads_that_scale_or_learn_keep_trls_kernel() -> None:
    model = with_kernel("gemma2", final_logit_softcapping=5.0)
    with reply_head(model) as ours:
        assert not ours
    model = with_kernel()
    model.get_output_embeddings().weight.requires_grad_(True)
    with reply_head(model) as ours:
        assert not ours


def test_the_model_is_its_old_self_afterwards() -> None:
    model = with_kernel()
    before = model.forward
    with reply_head(model):
        assert model.forward is not before
    assert model.forward is before
