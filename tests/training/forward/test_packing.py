"""Packed rows give the states of padded ones, or the model computes padded ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.forward.models import ROWS, padded, tiny
from training.forward.layout import Layout
from training.forward.packing import PackedDecoder, packed_rows

FITTING: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {},
    "mixtral": {},
    "gpt2": {},
}
OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 20.0},
    "bloom": {},
    "mamba": {"state_size": 4, "num_hidden_layers": 2},
}


@pytest.fixture(params=["by row", "by block"], autouse=True)
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in one call for each segment, or in one for all prefixes and one for all suffixes."""
    monkeypatch.setattr(Layout, "pays_by_row", lambda *_: request.param == "by row")


def states_and_gradient(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's states at real tokens, and the gradient of a weight with respect to a sum that weighs them all."""
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    weight.grad = None
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    real = states[mask.bool()]
    (real * torch.linspace(-1, 2, real.numel()).view(real.shape)).sum().backward()
    weight.requires_grad_(False)
    return real.detach(), weight.grad


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("family", FITTING)
def test_states_and_gradients_are_those_of_padded_rows(family: str, left: bool) -> None:
    model = tiny(family, **FITTING[family])
    ids, mask = padded(left=left)
    if left and family == "gpt2":  # absolute positions count the padding unless they are given
        pytest.skip("padded on the left, gpt2 itself reads other positions")
    expected = states_and_gradient(model, ids, mask)
    with packed_rows(model) as packed:
        assert packed is not None
        found = states_and_gradient(model, ids, mask)
        assert (packed.computed, packed.padded) == (30 + 3 + 2 + 9 + 1 + 4 + 3, ids.numel())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("family", OTHERS)
def test_other_models_compute_padded_rows(family: str) -> None:
    model = tiny(family, **OTHERS[family])
    ids, mask = padded()
    expected = states_and_gradient(model, ids, mask)
    with packed_rows(model) as packed:
        assert packed is None
        found = states_and_gradient(model, ids, mask)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_sequence_classifier_packs_too() -> None:
    from transformers import AutoModelForSequenceClassification

    model = tiny(kind=AutoModelForSequenceClassification, num_labels=1)
    ids, mask = padded(pad=0)
    expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    with packed_rows(model) as packed:
        found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        assert packed is not None and packed.computed < int(mask.sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_padding_is_zero_and_sums_stay_finite() -> None:
    model = tiny()
    ids, mask = padded()
    with packed_rows(model):
        states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert states[~mask.bool()].abs().max() == 0


def test_the_model_is_its_old_self_afterwards() -> None:
    model = tiny()
    before = model.base_model.forward
    with packed_rows(model):
        assert isinstance(model.base_model.forward, PackedDecoder)
    assert model.base_model.forward == before and model.config._attn_implementation == "sdpa"
    model.base_model.forward = own = lambda *_, **__: None
    with packed_rows(model):
        pass
    assert model.base_model.forward is own


def test_generation_goes_on_while_rows_are_packed() -> None:
    model = tiny()
    ids, mask = padded([ROWS[0], ROWS[2]], left=True)
    asked = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(ids, **asked)
    with packed_rows(model):
        assert torch.equal(model.generate(ids, **asked), expected)


def test_noise_on_the_embeddings_is_that_of_padded_rows() -> None:
    from transformers.integrations.neftune import neftune_post_forward_hook

    model = tiny()
    ids, mask = padded()
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    embedding.register_forward_hook(neftune_post_forward_hook)
    model.train()
    found = []
    for packs in (False, True):
        torch.manual_seed(1)
        if packs:
            with packed_rows(model) as packed:
                torch.manual_seed(1)
                found.append(states_and_gradient(model, ids, mask)[0])
                assert packed is not None and packed.computed == int(mask.sum())
        else:
            found.append(states_and_gradient(model, ids, mask)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


def test_a_row_without_tokens_is_computed_as_it_is() -> None:
    model = tiny()
    ids, mask = padded()
    mask[2] = 0
    with packed_rows(model) as packed:
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        assert packed is not None and packed.computed == 0


@pytest.mark.parametrize(
    ("family", "settings"),
    [("phimoe", {"sliding_window": 32, "num_local_experts": 2}), ("doge", {"sliding_window": 32})],
)
def test_a_window_that_only_the_mask_knows_is_not_packed(family: str, settings: dict[str, Any]) -> None:
    with packed_rows(tiny(family, **settings)) as packed:
        assert packed is None


def test_a_window_longer_than_the_probe_is_heeded() -> None:
    model = tiny("mistral", sliding_window=32)
    rows = [[20 + i * 7 % 40 for i in range(60)] + [end] for end in (1, 2)]
    ids, mask = padded(rows)
    expected = states_and_gradient(model, ids, mask)
    with packed_rows(model) as packed:
        assert packed is not None
        found = states_and_gradient(model, ids, mask)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-3)


def test_gradients_of_many_replies_to_one_prompt_repeat_bit_for_bit() -> None:
    model = tiny()
    ids, mask = padded([[*range(20, 50), end, end + 1] for end in range(60, 76)])
    with packed_rows(model):
        found = [states_and_gradient(model, ids, mask)[1] for _ in range(5)]
    assert all(torch.equal(one, found[0]) for one in found)
