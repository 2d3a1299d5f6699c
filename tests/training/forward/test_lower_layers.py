"""Training upper layers alone gives the gradients of the whole forward, and computes each row's lower layers once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.training.forward.models import ROWS, padded, tiny
from tests.training.forward.test_trainer_forward import METHODS, curve, train
from tests.training.tiny_models import model_at
from training.forward.lower_layers import decoder_layers, first_trained, freeze_below
from training.forward.packing import PackedDecoder, packed_rows
from training.settings.dpo import DpoSettings

FITTING: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 1, "num_hidden_layers": 4},
    "mistral": {"sliding_window": 6, "num_hidden_layers": 3},
    "qwen3": {"num_hidden_layers": 3},
    "gpt2": {"n_layer": 3},
}


def upper_gradient(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The gradient of a weight of the last layer."""
    weight = next(one for one in decoder_layers(model.base_model)[-1].parameters() if one.ndim == 2)
    weight.requires_grad_(True).grad = None
    real = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[mask.bool()]
    (real * torch.linspace(-1, 2, real.numel()).view(real.shape)).sum().backward()
    weight.requires_grad_(False)
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("family", FITTING)
@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_gradients_are_those_of_the_whole_forward_and_each_row_is_computed_once(family: str, limit: int) -> None:
    model = tiny(family, **FITTING[family])
    ids, mask = padded()
    expected = upper_gradient(model, ids, mask)
    with packed_rows(model) as packed:
        assert packed is not None
        assert packed.cache_below(model, 2, limit)
        assert packed.lower is not None
        for times in (1, 2):
            found = upper_gradient(model, ids, mask)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
            assert packed.lower.computed == (len(ROWS) if limit else times * len(ROWS))
    assert upper_gradient(model, ids, mask).equal(expected)  # nothing is left in the model


def test_states_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    model = tiny(num_hidden_layers=3)
    ids, mask = padded()
    with packed_rows(model) as packed, torch.no_grad():
        assert packed is not None
        packed.cache_below(model, 2, 1 << 30)
        lower = packed.lower
        assert lower is not None
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        together = dict(lower._states)
        lower._states.clear()
        for row, real in zip(ids, mask.bool(), strict=True):
            alone = row[real][None]
            model.base_model(input_ids=alone, attention_mask=torch.ones_like(alone), use_cache=False)
        assert together.keys() == lower._states.keys()
        assert len(together) == len(ROWS)
        assert all(together[key].equal(lower._states[key]) for key in together)


def test_a_model_whose_lower_layers_cannot_be_left_out_computes_them() -> None:
    model = tiny(num_hidden_layers=3)
    with packed_rows(model) as packed:
        assert packed is not None
        assert packed.cache_below(model, 2, 1 << 30)
        lowest, *_, last = decoder_layers(model.base_model)
        seen: list[torch.Tensor] = []
        lowest.register_forward_hook(lambda _, __, states: seen.append(states))
        last.register_forward_pre_hook(lambda _, given: (given[0] + seen[-1], *given[1:]))
        assert not packed.cache_below(model, 2, 1 << 30)
        assert packed.lower is None


@pytest.mark.parametrize(("share", "first"), [("all", 0), ("upper half", 15), ("upper third", 20)])
def test_the_share_counts_from_above(share: str, first: int) -> None:
    assert first_trained(share, 30) == first


def test_one_layer_is_trained_at_least() -> None:
    assert first_trained("upper third", 1) == 0
    assert first_trained("upper third", 2) == 1


def test_adapters_below_are_frozen() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny(num_hidden_layers=3)
    under = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert freeze_below(model.base_model, 2) > 0
    assert freeze_below(model.base_model, 2) == 0
    trained = {name for name, weight in under.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".layers.2." in name for name in trained)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_the_same_with_and_without_the_cache(
    method: str, tmp_path: Path, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = model_at(tmp_path / "base", num_hidden_layers=3)
    upper = {"train_layers": "upper third"}
    model, cached = train(method, base, pairs, tmp_path / "cached", **upper)
    assert any("training layers 3 to 3 of 3" in line for line in cached.lines)
    moved = {name for name, value in model.named_parameters() if "lora_B" in name and value.abs().sum() > 0}
    assert moved
    assert all(".layers.2." in name for name in moved)
    monkeypatch.setattr(PackedDecoder, "cache_below", lambda *_: False)
    plain = train(method, base, pairs, tmp_path / "plain", **upper)[1]
    assert any("cannot be cached" in line for line in plain.lines)
    assert curve(cached) == pytest.approx(curve(plain), rel=1e-4)
    whole = train(method, base, pairs, tmp_path / "whole")[1]
    assert curve(cached) != pytest.approx(curve(whole), rel=1e-4)


def test_adalora_moves_ranks_among_all_layers() -> None:
    with pytest.raises(ValidationError, match="train_layers=upper third trains some of them"):
        DpoSettings(dataset="d", adapter="adalora", train_layers="upper third")
