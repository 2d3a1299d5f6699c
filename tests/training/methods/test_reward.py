"""The reward method on a tiny model: it learns, keeps its head, and says what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotEnoughData, RunCancelled, UnknownSetting
from feedback.types import PreferencePair
from training.checkpoints.hashing import tensor_names
from training.checkpoints.manifest import ADAPTER_FILE, read_manifest
from training.checkpoints.opening import open_reward
from training.evaluation.reward_accuracy import agreement, length_only, pair_accuracy
from training.methods import METHODS
from training.methods.reward import train_reward
from training.models.loading import LoadedReward, load_scorer
from training.models.scoring import reward_scores
from training.reporting.reporter import LocalProgress
from training.settings.reward import RewardSettings

QUICK = RewardSettings(dataset="d", min_steps=8, epochs=1, batch_size=4, learning_rate=5e-3, warmup=0.0, save_every=4)


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def test_it_learns_the_taste_and_streams_its_curves(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    progress = LocalProgress()
    outcome = train_reward(str(tiny_base), pairs, QUICK, tmp_path, progress, device="cpu")
    assert len(curve(progress, "loss")) == 8
    assert curve(progress, "loss")[-1] < curve(progress, "loss")[0]
    assert {"accuracy", "margin", "learning_rate"} <= {point.name for point in progress.points}
    assert pair_accuracy(outcome.reward, pairs)["accuracy"] == 1.0
    assert any("only 8 pairs" in line for line in progress.lines)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    scores = []
    for attempt in range(2):
        outcome = train_reward(str(tiny_base), pairs, QUICK, tmp_path / str(attempt), LocalProgress(), device="cpu")
        scores.append(reward_scores(outcome.reward, [([{"role": "user", "content": "hi"}], "yes")]))
    assert scores[0] == scores[1]


def test_scores_do_not_depend_on_what_is_scored_beside_them(tiny_base: Path) -> None:
    reward = LoadedReward(*load_scorer(str(tiny_base), "cpu"), str(tiny_base))
    exchanges = [([{"role": "user", "content": "hi"}], "a" * n) for n in (3, 30, 1, 12)]
    together = reward_scores(reward, exchanges, batch_size=4)
    assert together == pytest.approx([reward_scores(reward, [one])[0] for one in exchanges], abs=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs_are_refused_with_both_numbers(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, count: int
) -> None:
    with pytest.raises(NotEnoughData, match=rf"has {count} pairs? to train on; at least 2"):
        train_reward(str(tiny_base), pairs[:count], QUICK, tmp_path, LocalProgress(), device="cpu")


def test_a_cancel_is_heard(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    progress = LocalProgress()
    progress.stop()
    with pytest.raises(RunCancelled):
        train_reward(str(tiny_base), pairs, QUICK, tmp_path, progress, device="cpu")
    assert not progress.points


@pytest.mark.slow
def test_a_second_attempt_goes_on_where_the_first_one_was_cut_off(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    class Cut(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 6:
                raise KeyboardInterrupt

    whole, resumed = LocalProgress(), LocalProgress()
    train_reward(str(tiny_base), pairs, QUICK, tmp_path / "whole", whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_reward(str(tiny_base), pairs, QUICK, tmp_path / "cut", Cut(), device="cpu")
    train_reward(str(tiny_base), pairs, QUICK, tmp_path / "cut", resumed, attempt=2, device="cpu")
    assert curve(resumed, "loss") == pytest.approx(curve(whole, "loss")[4:], abs=1e-5)


def test_equal_scores_are_worth_half_and_length_goes_either_way() -> None:
    assert agreement([1.0, 2.0, 0.0], [0.0, 2.0, 1.0]) == 1.5
    assert length_only([1, 1, 1, 5], [2, 2, 2, 4]) == 0.75
    assert length_only([2, 2], [2, 2]) == 0.5


def test_without_held_out_pairs_nothing_is_claimed(tiny_base: Path) -> None:
    reward = LoadedReward(*load_scorer(str(tiny_base), "cpu"), str(tiny_base))
    figures = pair_accuracy(reward, [])
    assert figures["accuracy"] is None
    assert figures["test_pairs"] == 0


def test_a_run_saves_a_checkpoint_with_its_head_and_its_worth(make_context: Any, dataset: str, tiny_base: Path) -> None:
    config = {"dataset": dataset, "name": "taste-rm", "min_steps": 20, "epochs": 1, "batch_size": 4}
    context = make_context("reward", config)
    result = METHODS["reward"].run(context)
    assert result["checkpoint"] == "taste-rm"
    assert "policy" not in result
    assert 0.0 <= result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"] <= 1.0
    assert result["length_only_accuracy"] == 1.0  # this taste is nothing but length
    directory = context.home.checkpoints / "taste-rm"
    manifest = read_manifest(directory)
    assert (manifest.heads, manifest.pooling) == (["score"], "sum")  # a small base sums over the tokens
    assert any(name.endswith("score.weight") for name in tensor_names(directory / ADAPTER_FILE))
    reward = open_reward(context.db, context.home, "taste-rm", "cpu")
    assert reward.base == str(tiny_base)


def test_a_policys_checkpoint_cannot_score(make_context: Any, dataset: str) -> None:
    context = make_context("dpo", {"dataset": dataset, "name": "p1", "min_steps": 1, "epochs": 1})
    METHODS["dpo"].run(context)
    with pytest.raises(UnknownSetting, match="is a policy, not a reward model. Reward models: "):
        open_reward(context.db, context.home, "p1", "cpu")
