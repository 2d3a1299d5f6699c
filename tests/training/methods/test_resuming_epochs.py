"""A run that is resumed beyond its first epoch is the run that was never stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.datasets.examples import LabelledReply
from tests.training.conftest import make_pair
from tests.training.shapes import save_family
from tests.training.shared_steps import Imitation
from training.methods.dpo import train_dpo
from training.methods.kto import train_kto
from training.methods.reward import train_reward
from training.methods.rloo import order_by_epoch, train_rloo
from training.methods.sft import train_sft
from training.reporting.reporter import LocalProgress
from training.settings.dpo import DpoSettings
from training.settings.kto import KtoSettings
from training.settings.reward import RewardSettings
from training.settings.rloo import RlooSettings
from training.settings.sft import SftSettings

PAIRS = [make_pair(i, "a" * (2 + 5 * i % 9), "z" * (1 + 7 * i % 8)) for i in range(11)]  # 3 steps of 4, 4 and 3
PROMPTS = [[{"role": "user", "content": f"Say {number}."}] for number in range(10)]  # 2 steps, two prompts left over
QUICK: dict[str, Any] = {"dataset": "d", "epochs": 1, "min_steps": 8, "batch_size": 4, "log_every": 1}
DRAWN: dict[str, Any] = {
    "reward_function": "no_repetition",
    "epochs": 1,
    "min_steps": 8,
    "batch_size": 16,
    "samples": 4,
    "max_new_tokens": 6,
    "learning_rate": 2e-2,
    "warmup": 0.0,
    "log_every": 1,
}
DPO: dict[str, dict[str, Any]] = {
    "dpo": {},
    "dpo in bf16": {"precision": "bf16"},
    "dpo of the upper half": {"train_layers": "upper half", "embedding_noise": 0.0},
}


class Vowels:
    """Scores the share of a's."""

    def score_all(self, exchanges: Sequence[Any]) -> list[float]:
        return [10 * reply.count("a") / max(1, len(reply)) for _, reply in exchanges]


class Ranks:
    """Scores the replies to a prompt differently, whatever they say."""

    def score_all(self, exchanges: Sequence[Any]) -> list[float]:
        return [float(number % 4) for number in range(len(exchanges))]


class Cut(LocalProgress):
    """A run that is stopped at its seventh step."""

    def metrics(self, step: int, **values: float) -> None:
        super().metrics(step, **values)
        if step == 7:
            raise KeyboardInterrupt


Train = Callable[[Path, LocalProgress, int], Any]


def trainer_of(method: str, base: str, save_every: int) -> Train:
    """Trains by the method; gives the trained model."""
    quick, drawn = QUICK | {"save_every": save_every}, DRAWN | {"save_every": save_every}
    labelled = [
        LabelledReply(prompt_id=pair.prompt_id, messages=pair.messages, reply=pair.chosen, good=bool(i % 3))
        for i, pair in enumerate(PAIRS)
    ]
    imitated = [Imitation(pair.messages, pair.chosen) for pair in PAIRS]

    def train(directory: Path, told: LocalProgress, attempt: int) -> Any:
        more: Any = {"attempt": attempt, "device": "cpu"}
        if method in DPO:
            settings = DpoSettings(**quick | DPO[method])
            return train_dpo(base, None, PAIRS, settings, directory, told, **more).model
        if method == "kto":
            return train_kto(base, None, labelled, KtoSettings(**quick), directory, told, **more).model
        if method == "sft":
            return train_sft(base, None, imitated, SftSettings(**quick), directory, told, **more).model
        if method in ("reward", "ranking"):
            scored = RewardSettings(**quick, margin=0.1 if method == "ranking" else 0.0)
            return train_reward(base, PAIRS, scored, directory, told, **more).reward.model
        settings_of_rloo = RlooSettings(**drawn, advantage=method)
        return train_rloo(base, None, PROMPTS, Vowels(), settings_of_rloo, directory, told, **more).model

    return train


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [4, 6])  # within the second or third epoch, and between two
@pytest.mark.parametrize("method", [*DPO, "kto", "sft", "reward", "ranking", "rloo", "grpo"])
def test_a_run_resumed_beyond_its_first_epoch_ends_the_same(
    method: str, save_every: int, tiny_base: Path, tmp_path: Path
) -> None:
    import torch

    train = trainer_of(method, str(tiny_base), save_every)
    told, again = LocalProgress(), LocalProgress()
    whole = weights_of(train(tmp_path / "whole", told, 1))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Cut(), 1)
    torch.manual_seed(99)
    resumed = weights_of(train(tmp_path / "cut", again, 2))
    assert any("going on from" in line for line in again.lines)
    later = {(p.name, p.step): p.value for p in again.points if p.name == "loss"}
    assert later and all(later[p.name, p.step] == p.value for p in told.points if (p.name, p.step) in later)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def weights_of(model: Any) -> dict[str, Any]:
    return {name: weight.detach() for name, weight in model.named_parameters() if "lora" in name or "score" in name}


def test_the_prompts_of_an_epoch_depend_on_seed_and_epoch_alone() -> None:
    from trl.trainer.utils import RepeatSampler

    def order(epochs: Sequence[int]) -> list[list[int]]:
        sampler = order_by_epoch(RepeatSampler(range(10), 2, batch_size=4, seed=5))
        found = []
        for epoch in epochs:
            sampler.set_epoch(epoch)
            found.append(list(sampler))
        return found

    first, second, third = order([0, 1, 2])
    assert first != second != third != first
    assert order([2]) == [third] and order([1, 2]) == [second, third]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox"])
@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_the_first_step_is_not_away_from_the_parent_though_the_model_has_dropout(
    family: str, advantage: Any, tiny_base: Path, tmp_path: Path
) -> None:
    base = str(save_family(family, tiny_base, tmp_path / family, dropout=0.1))
    told = LocalProgress()
    settings = RlooSettings(**{**DRAWN, "min_steps": 1}, advantage=advantage, beta=0.1)
    train_rloo(base, None, PROMPTS, Ranks(), settings, tmp_path / "run", told, device="cpu")
    (drift, *_) = [point.value for point in told.points if point.name == "kl_per_token"]
    assert drift == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow_except("opt")
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_preferences_are_compared_with_the_parent_without_dropout(family: str, tiny_base: Path, tmp_path: Path) -> None:
    base = str(save_family(family, tiny_base, tmp_path / family, dropout=0.1))
    told = LocalProgress()
    settings = DpoSettings(**{**QUICK, "min_steps": 1, "embedding_noise": 0.0, "allow_few": True})
    train_dpo(base, None, PAIRS, settings, tmp_path / "run", told, device="cpu")
    first = {point.name: point.value for point in told.points if point.step == 1}
    assert first["margin"] == pytest.approx(0.0, abs=1e-5)
    assert first["chosen_log_prob_change"] == pytest.approx(0.0, abs=1e-3)
