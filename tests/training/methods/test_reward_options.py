"""Reward models beyond plain pairs: rankings, margins, wrong labels, and ensembles on one base."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.datasets.examples import Ranking, list_ties
from feedback.datasets.freeze import freeze
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models.checkpoints import get_checkpoint
from feedback.types import DatasetFilters, Matchup, MatchupKind, Message, PreferencePair, Role
from tests.factories import judge_by, make_generations, make_matchup, make_prompt
from training.checkpoints.loading import load_reward
from training.checkpoints.manifest import ADAPTER_FILE, CheckpointError, read_manifest
from training.checkpoints.opening import open_reward
from training.methods import METHODS, reward, reward_ensemble
from training.methods.reward import train_ensemble, train_reward
from training.models.ensemble import EnsembleModel, members_of
from training.models.loading import load_scorer
from training.models.scoring import reward_scores
from training.reporting.reporter import LocalProgress
from training.rewards.oracle_annotator import annotate
from training.rewards.scorers import RewardModels
from training.settings.reward import RewardSettings

QUICK = RewardSettings(
    dataset="d", min_steps=6, epochs=1, batch_size=4, learning_rate=5e-3, warmup=0.0, embedding_noise=0.0
)
EXCHANGES = [([{"role": "user", "content": "Say 1."}], text) for text in ("aaaa", "zzzz", "azaz")]


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def ranking(number: int, replies: Sequence[str], ranks: Sequence[int]) -> Ranking:
    return Ranking(
        prompt_id=f"p{number}",
        matchup_id=f"m{number}",
        messages=(Message(role=Role.user, content=f"Say {number}."),),
        replies=tuple(replies),
        ranks=tuple(ranks),
    )


RANKINGS = [ranking(i, ["zzzz", "aaaa", "aazz", "azzz"], [4, 1, 2, 3]) for i in range(7)]
RANKINGS.append(ranking(7, ["zz", "aa", "za"], [2, 1, 2]))


@pytest.mark.slow
def test_rankings_of_any_size_are_learnt_with_each_reply_read_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.forward.packing import PackedDecoder

    rows = []
    real = PackedDecoder.__call__

    def counted(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        rows.append(len(input_ids))
        return real(self, input_ids, **kwargs)

    monkeypatch.setattr(PackedDecoder, "__call__", counted)
    settings = QUICK.model_copy(update={"rankings": True, "min_steps": 20, "batch_size": 8})
    progress = LocalProgress()
    outcome = train_reward(str(tiny_base), [], settings, tmp_path, progress, device="cpu", rankings=RANKINGS)
    assert next(count for count in rows if count > 4) == 7 * 4 + 3  # the probe looks at four rows
    assert outcome.pairs == 8
    assert curve(progress, "loss")[-1] < curve(progress, "loss")[0]
    assert curve(progress, "accuracy")[-1] > 0.9
    scores = reward_scores(outcome.reward, [(EXCHANGES[0][0], text) for text in ("aaaa", "aazz", "zzzz")])
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_pairs_as_rankings_of_two_learn_what_trl_learns_from_pairs(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    losses, rewards = [], []
    for rankings in (False, True):
        progress = LocalProgress()
        settings = QUICK.model_copy(update={"rankings": rankings})
        outcome = train_reward(str(tiny_base), pairs, settings, tmp_path / str(rankings), progress, device="cpu")
        losses.append(curve(progress, "loss"))
        rewards.append(reward_scores(outcome.reward, EXCHANGES))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert rewards[1] == pytest.approx(rewards[0], abs=1e-3)


def test_the_loss_is_the_mean_of_the_rankings_each_by_its_weight(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    """Two weighted pairs and a tie; the trainer's loss against that of its own scores, by hand."""
    import torch
    from torch.nn.functional import logsigmoid

    from training.models.loading import load_scorer
    from training.trainer.ranking_trainer import as_rankings, build_ranking_trainer, usable_rankings
    from training.trainer.running import trainer_scope

    settings = QUICK.model_copy(update={"ties": 0.8, "centering": 0.0})
    pairs = [
        pair.model_copy(update={"chosen": chosen, "rejected": "zz", "weight": weight})
        for pair, chosen, weight in zip(pairs, ("aa", "az"), (0.9, 0.1), strict=False)
    ]
    with trainer_scope():
        torch.manual_seed(0)
        model, tokenizer = load_scorer(str(tiny_base), "cpu")
        torch.nn.init.normal_(model.score.weight)
        ranked = [*as_rankings(pairs), ranking(1, ["aza", "zaz"], [1, 1])]
        rows, _ = usable_rankings(tokenizer, model, ranked, settings, LocalProgress())
        trainer = build_ranking_trainer(model, tokenizer, rows, settings, tmp_path, LocalProgress())
        batch = trainer.data_collator(rows)
        loss = trainer.compute_loss(trainer.model.eval(), dict(batch))
        scores = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    lead = scores[0::2, 0] - scores[1::2, 0]
    by_hand = -1.8 * logsigmoid(lead[0]) - 0.2 * logsigmoid(lead[1])
    by_hand += 0.8 * (-0.5 * logsigmoid(lead[2]) - 0.5 * logsigmoid(-lead[2]) - math.log(2) / 2)
    assert loss.item() == pytest.approx(by_hand.item() / 3, rel=1e-4)


@pytest.mark.slow
def test_replies_called_equally_good_are_pulled_to_one_score(make_context: Any, tiny_policy: Any) -> None:
    db = make_context("reward", {"dataset": "d"}).db
    for number in range(6):
        make_matchup(db, texts=[f"aaaa {number}", f"zzzz {number}"], policy=tiny_policy)
        make_matchup(db, texts=[f"aab {number}", f"zzb {number}"], policy=tiny_policy)
    judge_by(db, lambda left, right: float(left.startswith("aaaa")) - float(right.startswith("aaaa")))
    freeze(db, "tied", DatasetFilters(test_share=0.0))
    config = {"dataset": "tied", "min_steps": 40, "learning_rate": 5e-3, "allow_few": True, "embedding_noise": 0.0}
    apart = {}
    for weight in (0.0, 2.0):
        context = make_context("reward", {**config, "ties": weight, "name": f"rm-{weight:g}"})
        result = METHODS["reward"].run(context)
        assert (result["pairs"], result["ties"]) == (6, 6 if weight else 0)
        reward = open_reward(db, context.home, f"rm-{weight:g}", "cpu")
        exchanges = [
            ([message.model_dump(mode="json") for message in tie.messages], reply)
            for tie in list_ties(db, "tied")
            for reply in tie.replies
        ]
        scores = reward_scores(reward, exchanges)
        apart[weight] = sum(abs(scores[i] - scores[i + 1]) for i in range(0, 12, 2)) / 6
    assert apart[2.0] < 0.5 * apart[0.0]


@pytest.mark.slow
def test_a_strong_preference_asks_for_a_wider_margin(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    first = {}
    for strength in (0.0, 3.0):
        progress = LocalProgress()
        strong = [pair.model_copy(update={"margin": strength}) for pair in pairs]
        settings = QUICK.model_copy(update={"margin": 0.5, "centering": 0.0, "batch_size": 8})
        train_reward(str(tiny_base), strong, settings, tmp_path / str(strength), progress, device="cpu")
        first[strength] = (curve(progress, "loss")[0], curve(progress, "margin")[0])
    assert first[0.0][1] == pytest.approx(first[3.0][1], abs=1e-5)
    # The head starts near nought, where the loss is that of the margin alone
    assert first[3.0][0] - first[0.0][0] == pytest.approx(math.log1p(math.exp(1.5)) - math.log(2), abs=0.3)


@pytest.mark.slow
def test_label_smoothing_keeps_scores_from_running_apart(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    spread = {}
    for smoothing in (0.0, 0.3):
        settings = QUICK.model_copy(update={"label_smoothing": smoothing, "min_steps": 40, "centering": 0.0})
        progress = LocalProgress()
        train_reward(str(tiny_base), pairs, settings, tmp_path / str(smoothing), progress, device="cpu")
        spread[smoothing] = curve(progress, "margin")[-1]
    # With a share of 0.3 wrong the best margin is log(0.7 / 0.3)
    assert 0.0 < spread[0.3] < 2.0 < spread[0.0]


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_members_that_differ(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"members": 3})
    progress = LocalProgress()
    outcome = train_ensemble(str(tiny_base), pairs, settings, tmp_path, progress, device="cpu")
    assert isinstance(outcome.reward.model, EnsembleModel)
    opinions = RewardModels([outcome.reward]).scores(EXCHANGES).T.tolist()
    assert all(len(set(one)) == 3 for one in opinions)
    together = reward_scores(outcome.reward, EXCHANGES)
    assert together == pytest.approx([sum(one) / 3 for one in opinions], abs=1e-5)
    assert RewardModels([outcome.reward], "worst").score_all(EXCHANGES) == [min(one) for one in opinions]
    alone = train_reward(str(tiny_base), pairs, QUICK, tmp_path / "alone", LocalProgress(), device="cpu")
    assert reward_scores(alone.reward, EXCHANGES) == pytest.approx([one[0] for one in opinions], abs=1e-4)
    assert [line for line in progress.lines if line.startswith("reward model")] == [
        f"reward model {number} of 3" for number in (1, 2, 3)
    ]
    assert len(curve(progress, "loss")) == len(curve(progress, "member_3_loss")) == 6


@pytest.mark.slow
def test_an_ensemble_is_put_together_on_the_base_its_members_learnt_on(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(base: str, device: str | None = None, **wanted: Any) -> Any:
        asked.append(wanted.pop("quantize"))  # held in fewer bits it would need a GPU
        return load_scorer(base, device, **wanted)

    for module in (reward_ensemble, reward):
        monkeypatch.setattr(module, "load_scorer", load)
    settings = QUICK.model_copy(update={"members": 2, "quantize": "8bit"})
    train_ensemble(str(tiny_base), pairs, settings, tmp_path, LocalProgress(), device="cpu")
    assert asked == ["8bit", "8bit", "8bit"]


@pytest.mark.slow
def test_members_that_were_finished_are_not_trained_again(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    class CutInSecond(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if "member_2_loss" in values:
                raise KeyboardInterrupt

    settings = QUICK.model_copy(update={"members": 2})
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(str(tiny_base), pairs, settings, tmp_path, CutInSecond(), device="cpu")
    progress = LocalProgress()
    outcome = train_ensemble(str(tiny_base), pairs, settings, tmp_path, progress, attempt=2, device="cpu")
    assert curve(progress, "loss") == [] and len(curve(progress, "member_2_loss")) == 6
    assert len(members_of(outcome.reward)) == 2


@pytest.mark.slow
def test_an_ensemble_is_one_checkpoint_that_is_refused_when_a_member_is_damaged(
    make_context: Any, dataset: str
) -> None:
    config = {"dataset": dataset, "name": "jury", "min_steps": 2, "epochs": 1, "batch_size": 4, "members": 2}
    context = make_context("reward", config)
    result = METHODS["reward"].run(context)
    assert result["accuracy"] is not None
    directory = context.home.path / get_checkpoint(context.db, "jury").path
    manifest = read_manifest(directory)
    assert manifest.members == 2
    assert set(manifest.files) == {ADAPTER_FILE, f"member-2/{ADAPTER_FILE}"}
    reward = open_reward(context.db, context.home, "jury", "cpu")
    assert len(members_of(reward)) == 2
    drawn = {"dataset": dataset, "samples": 12, "max_new_tokens": 60, "min_steps": 2, "name": "fit"}
    METHODS["rft"].run(make_context("rft", drawn | {"reward": "jury", "combine": "uncertain"}))
    path = directory / "member-2" / ADAPTER_FILE
    path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
    with pytest.raises(CheckpointError, match="member-2/adapter_model.safetensors is not what was saved"):
        load_reward(directory, device="cpu")


def test_a_run_learns_from_rankings_and_estimates_its_noise(make_context: Any, tiny_policy: Any) -> None:
    context = make_context("reward", {"dataset": "ranked"})
    db = context.db
    for number in range(8):
        prompt = make_prompt(db, f"Count {number}.")
        rows = make_generations(
            db, prompt, tiny_policy, [f"no {number}", f"a bit more {number}", f"so very many words {number}"]
        )
        kind = MatchupKind.rank
        save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=[row.id for row in rows], kind=kind)])
    annotate(db, context.home, "longer", 8)
    for number in range(6):
        make_matchup(db, policy=tiny_policy, texts=[f"no {number}", f"yes yes yes {number}"], required=2)
    rng = random.Random(1)
    judge_by(db, lambda left, right: len(left) - len(right), annotator="ann")
    judge_by(db, lambda left, right: rng.choice([-1, 1]), annotator="ben")
    freeze(db, "ranked", DatasetFilters(test_share=0.0))
    config = {"dataset": "ranked", "min_steps": 2, "epochs": 1, "rankings": True, "estimate_noise": True}
    run = make_context("reward", config | {"name": "ranker"})
    result = METHODS["reward"].run(run)
    assert result["pairs"] == 8 + 12
    assert any("suggests that" in line for line in run.progress.lines)
    saved = read_manifest(context.home.path / get_checkpoint(db, "ranker").path)
    assert 0 < saved.config["label_smoothing"] <= 0.45
