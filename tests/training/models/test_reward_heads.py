"""The head that adds up over the tokens: by hand, under padding, and from a checkpoint."""

from pathlib import Path

import pytest
import torch

from training.models.classifiers import head_of
from training.models.loading import LoadedReward, load_scorer
from training.models.reward_heads import USUAL_LENGTH, MeanScore, SummedScore
from training.models.scoring import reward_scores


def test_the_score_is_the_sum_up_to_each_token() -> None:
    head = SummedScore(2)
    torch.nn.init.constant_(head.bias, 0.5)
    head.weight.data = torch.tensor([[1.0, -2.0]])
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]]])
    assert ((head(states) - 0.5) * USUAL_LENGTH).squeeze().tolist() == [1.0, -1.0, 0.0]


def test_the_mean_pays_nothing_for_length() -> None:
    head = MeanScore(1, bias=False)
    head.weight.data.fill_(2.0)
    states = torch.tensor([[[1.0], [3.0], [2.0], [2.0]]])
    assert head(states).squeeze().tolist() == [2.0, 4.0, 4.0, 4.0]


def test_sixteen_bit_states_are_added_up_in_fp32() -> None:
    head = SummedScore(1, bias=False)
    head.weight.data.fill_(1.0)
    states = torch.full((1, 1024, 1), 1.0, dtype=torch.bfloat16)  # bf16 would stop counting at 256
    assert head(states)[0, -1, 0].item() * USUAL_LENGTH == pytest.approx(1024)


@pytest.mark.parametrize("pooling", ["last", "sum", "mean"])
def test_padding_adds_nothing(tiny_base: Path, pooling) -> None:
    reward = LoadedReward(*load_scorer(str(tiny_base), "cpu", pooling), str(tiny_base))
    exchanges = [([{"role": "user", "content": "hi"}], "a" * n) for n in (3, 30, 1, 12)]
    together = reward_scores(reward, exchanges, batch_size=4)
    assert together == pytest.approx([reward_scores(reward, [one])[0] for one in exchanges], abs=1e-5)


def test_the_pooled_head_starts_from_the_weights_of_the_plain_one(tiny_base: Path) -> None:
    torch.manual_seed(0)
    plain, _ = load_scorer(str(tiny_base), "cpu")
    torch.manual_seed(0)
    summed, _ = load_scorer(str(tiny_base), "cpu", "sum")
    assert torch.equal(head_of(plain).weight, head_of(summed).weight)
