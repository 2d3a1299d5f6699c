"""Which precision a training takes, and that weights held in bf16 are restored bit for bit."""

from __future__ import annotations

import pytest
import torch

from tests.training.forward.models import padded, tiny
from training.forward import precision
from training.forward.precision import bf16_weights, choose_precision, join_halves, split_halves
from training.settings.train import LARGE_MODEL


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-4, 1.0, 1e4, 1e30])
def test_halves_join_to_the_same_bits(scale: float) -> None:
    torch.manual_seed(0)
    values = torch.randn(257, 33) * scale
    high, low = split_halves(values)
    assert high.dtype is torch.bfloat16 and low.dtype is torch.int16
    assert (high.float() - values).abs().max() <= (values.to(torch.bfloat16).float() - values).abs().max()
    assert torch.equal(join_halves(high, low).view(torch.int32), values.view(torch.int32))


def test_every_kind_of_number_joins_to_itself() -> None:
    largest = torch.finfo(torch.float32).max
    values = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, largest, -largest, 1.0, 1.00390625, 1.01171875])
    values = torch.cat([values, -values[-2:]])
    assert torch.equal(join_halves(*split_halves(values)).view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("tied", [False, True])
def test_frozen_linear_weights_are_bf16_for_a_while(tied: bool) -> None:
    model = tiny(tie_word_embeddings=tied)
    trained = model.base_model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), bf16_weights(model) as count:
        assert count == 13  # of 14: one is trained; the head is none of them
        assert model.base_model.layers[0].mlp.down_proj.weight.dtype is torch.bfloat16
        others = (trained, model.get_input_embeddings().weight, model.lm_head.weight, model.base_model.norm.weight)
        assert {other.dtype for other in others} == {torch.float32}
        ids, mask = padded()
        with torch.autocast("cpu", torch.bfloat16):
            assert model(input_ids=ids, attention_mask=mask).logits.isfinite().all()
        raise KeyError
    for name, value in model.state_dict().items():
        assert torch.equal(value.view(torch.int32), before[name].view(torch.int32))


def test_auto_is_bf16_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(
        device: str, parameters: int, *, able: bool = True, gain: float = 2.0, asked: str | None = "auto"
    ) -> str:
        monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: able)
        monkeypatch.setattr(precision, "bf16_gain", lambda: gain)
        return choose_precision(asked, device, parameters)[0]

    assert chosen("cpu", LARGE_MODEL) == "bf16"
    assert chosen("cpu", LARGE_MODEL - 1) == "fp32"
    assert chosen("cpu", LARGE_MODEL, able=False) == "fp32"
    assert chosen("cpu", LARGE_MODEL, gain=0.9) == "bf16", "what a clock says at this moment decides nothing"
    assert chosen("cuda", 1) == "bf16"
    assert chosen("cpu", LARGE_MODEL, asked=None) == "fp32" and chosen("cuda", 1, asked=None) == "bf16"
    for asked in ("fp32", "bf16"):
        assert {chosen(device, LARGE_MODEL, asked=asked, able=False) for device in ("cpu", "cuda")} == {asked}


def test_the_log_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: True)
    monkeypatch.setattr(precision, "bf16_gain", lambda: 2.44)
    assert "2.4 times as fast" in choose_precision("auto", "cpu", LARGE_MODEL)[1]


def test_the_gain_is_a_ratio_of_times() -> None:
    assert 0.01 < precision.bf16_gain() < 100


def test_scores_of_a_reward_model_are_not_rounded_to_bf16() -> None:
    from training.models.reward_heads import MeanScore, SummedScore

    torch.manual_seed(0)
    states = torch.randn(2, 600, 8)
    linear = torch.nn.Linear(8, 1)
    for head in (SummedScore(8), MeanScore(8), linear):
        torch.nn.init.normal_(head.weight)
        exact = head(states)
        with torch.autocast("cpu", torch.bfloat16), precision.fp32_head(head):
            torch.testing.assert_close(head(states), exact)
        assert "forward" not in vars(head)
