"""RLOO and RFT on a tiny model: rewards come from where they should, and what scores better becomes likelier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import NotEnoughData, NotFound, UnknownSetting
from feedback.store.content.prompts import list_prompts, save_prompts
from feedback.store.models.checkpoints import get_checkpoint
from feedback.types import ASKED_HERE, Prompt, SamplingSettings, Split
from tests.factories import make_prompt
from tests.training.families import FAMILIES, save_model, tokenizer_of
from training.adapters.build import adapter_config
from training.checkpoints.manifest import read_manifest
from training.generation.sampling import sample
from training.methods import METHODS
from training.methods.rft import best_of_kl, select_best
from training.methods.rloo import train_rloo
from training.models.chat import Messages
from training.models.loading import LoadedPolicy, load_base
from training.reporting.reporter import DryRunDone, LocalProgress, Watch
from training.rewards import functions
from training.rewards.scorers import RewardModels, checkpoint_keys, combine_scores, open_picker
from training.runs.queue import submit
from training.settings.rft import RftSettings
from training.settings.rloo import RlooSettings

PROMPTS = [[{"role": "user", "content": f"Say {number}."}] for number in range(4)]
RLOO = RlooSettings(
    reward_function="no_repetition",
    min_steps=12,
    batch_size=32,
    samples=8,
    max_new_tokens=12,
    learning_rate=2e-2,
    warmup=0.0,
    schedule="constant",
    beta=0.01,
    save_every=4,
)


@dataclass
class Vowels:
    """Scores the share of a's, and remembers what it was asked."""

    asked: list[tuple[Messages, str]] = field(default_factory=list)

    def score_all(self, exchanges: Sequence[tuple[Messages, str]]) -> list[float]:
        self.asked += exchanges
        return [10 * reply.count("a") / max(1, len(reply)) for _, reply in exchanges]


@pytest.fixture
def vowels(monkeypatch: pytest.MonkeyPatch) -> str:
    """A reward function that tells the tiny model's noise apart, registered as an installed package would."""

    def share(prompt: str, reply: str) -> float:
        return reply.count("a") + 0.01 * len(reply)

    monkeypatch.setattr(functions, "_registered", lambda: {"vowels": lambda: share})
    return "vowels"


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


@pytest.mark.slow_except("grpo")
@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_what_scores_better_becomes_likelier(tiny_base: Path, tmp_path: Path, advantage: str) -> None:
    progress, scorer = LocalProgress(), Vowels()
    settings = RLOO.model_copy(update={"advantage": advantage})
    outcome = train_rloo(str(tiny_base), None, PROMPTS, scorer, settings, tmp_path, progress, device="cpu")
    rewards = curve(progress, "reward")
    assert len(rewards) == 12
    assert sum(rewards[-4:]) > sum(rewards[:4])
    assert curve(progress, "kl_per_token")[0] == pytest.approx(0.0, abs=1e-5)
    # The judge is given the conversation and the bare reply: no template, no special tokens
    assert {messages[0]["content"] for messages, _ in scorer.asked} == {f"Say {n}." for n in range(4)}
    names = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
    assert not [reply for _, reply in scorer.asked if any(name in reply for name in names)]
    assert list(outcome.model.peft_config) == ["default"]


@pytest.mark.slow
def test_a_second_attempt_goes_on_from_its_state(tiny_base: Path, tmp_path: Path) -> None:
    class Cut(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rloo(str(tiny_base), None, PROMPTS, Vowels(), RLOO, tmp_path, Cut(), device="cpu")
    resumed = LocalProgress()
    train_rloo(str(tiny_base), None, PROMPTS, Vowels(), RLOO, tmp_path, resumed, attempt=2, device="cpu")
    assert "going on from checkpoint-4" in resumed.lines
    assert [point.step for point in resumed.points if point.name == "loss"] == list(range(5, 13))


def test_the_best_reply_to_each_prompt_is_kept(tiny_base: Path) -> None:
    policy = LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))
    settings = RftSettings(reward_function="no_repetition", samples=16, max_new_tokens=100)
    scorer = Vowels()
    selection = select_best(policy, scorer, PROMPTS, settings)
    drawn = sample(policy, PROMPTS, 16, SamplingSettings(max_new_tokens=100), 0)
    for one in selection.kept:
        number = int(one.messages[0].content[4:-1])
        whole = [reply.text for reply in drawn[number] if reply.finish_reason == "stop"]
        assert one.score == max(scorer.score_all([(PROMPTS[number], text) for text in whole]))
        assert one.reply in whole
    assert selection.kept_score > selection.mean_score
    # Replies that were cut are never imitated
    assert {text for _, text in scorer.asked} <= {
        reply.text for own in drawn for reply in own if reply.finish_reason == "stop"
    }


def test_a_reward_that_cannot_tell_replies_apart_teaches_nothing(tiny_base: Path) -> None:
    class Blank:
        def score_all(self, exchanges: Sequence[Any]) -> list[float]:
            return [1.0] * len(exchanges)

    policy = LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))
    settings = RftSettings(reward_function="no_repetition", samples=4, max_new_tokens=60)
    with pytest.raises(NotEnoughData, match="0 scored above the others"):
        select_best(policy, Blank(), PROMPTS, settings)


def test_several_models_score_together() -> None:
    scores = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    assert combine_scores(scores, "mean", 9.0).item() == 2.0
    assert combine_scores(scores, "worst", 9.0).item() == 1.0
    assert combine_scores(scores, "uncertain", 0.5).item() == 2.0 - 0.5 * 1.0
    assert RewardModels([]).score_all([]) == []
    assert checkpoint_keys("one, two") == ["one", "two"]
    assert best_of_kl(4) == pytest.approx(math.log(4) - 0.75)


@pytest.mark.slow
def test_runs_from_a_reward_checkpoint_and_from_a_function(make_context: Any, dataset: str, vowels: str) -> None:
    quick = {"dataset": dataset, "min_steps": 2, "epochs": 1, "batch_size": 4}
    context = make_context("reward", quick | {"name": "judge"})
    METHODS["reward"].run(context)
    drawn = {"samples": 4, "max_new_tokens": 40, "reward": "judge"}
    fit = METHODS["rft"].run(make_context("rft", quick | drawn | {"name": "fit", "samples": 12}))
    assert fit["score_kept"] > fit["score_drawn"]
    assert fit["best_of_kl"] == pytest.approx(best_of_kl(12))
    manifest = read_manifest(context.home.path / get_checkpoint(context.db, "fit").path)
    assert manifest.method == "rft" and manifest.dataset is not None and manifest.reference is None

    without = {"min_steps": 2, "batch_size": 4, "samples": 2, "max_new_tokens": 8, "name": "bold"}
    result = METHODS["rloo"].run(make_context("rloo", without | {"reward_function": vowels}))
    work = list_prompts(context.db, split=Split.work)
    assert result["prompts"] == len(work)
    manifest = read_manifest(context.home.path / get_checkpoint(context.db, "bold").path)
    assert manifest.dataset is None and manifest.reference == manifest.parent


@pytest.mark.slow
def test_a_dry_run_draws_little_and_leaves_nothing(make_context: Any, vowels: str) -> None:
    config = {"reward_function": vowels, "samples": 4, "max_new_tokens": 100, "dry_run": True, "sampling_batch": 16}
    context = make_context("rft", config)
    for number in range(40):
        make_prompt(context.db, f"Say {number}.")
    said: list[str] = []
    context.progress.watch = Watch(dry_run=True)
    context.progress.report = lambda fraction, text: said.append(text)
    with pytest.raises(DryRunDone):
        METHODS["rft"].run(context)
    assert "64 of 64 replies drawn" in said
    assert not (context.run_dir / "kept.json").exists()


@pytest.mark.slow
def test_a_second_attempt_imitates_what_the_first_one_drew(make_context: Any, dataset: str, vowels: str) -> None:
    config = {
        "dataset": dataset,
        "min_steps": 2,
        "epochs": 1,
        "samples": 12,
        "max_new_tokens": 100,
        "reward_function": vowels,
        "name": "again",
    }
    context = make_context("rft", config)
    first = METHODS["rft"].run(context)
    second = make_context("rft", config, attempt=2, run=context.run)
    assert METHODS["rft"].run(second)["score_kept"] == first["score_kept"]
    assert any("earlier attempt" in line for line in second.progress.lines)


@pytest.mark.slow
def test_evaluation_prompts_are_never_drawn_for_training(make_context: Any, vowels: str) -> None:
    config = {"reward_function": vowels, "min_steps": 4, "batch_size": 8, "samples": 4, "max_new_tokens": 8}
    context = make_context("rloo", config)
    for number in range(3):
        make_prompt(context.db, f"Work {number}.")
        make_prompt(context.db, f"Held out {number}.", split=Split.evaluation)
    asked = Prompt(messages=[{"role": "user", "content": "Somebody's test question."}], tags=[ASKED_HERE])
    save_prompts(context.db, [asked])  # came in with a request for replies
    assert METHODS["rloo"].run(context)["prompts"] == 3


def test_what_cannot_judge_is_refused_before_the_queue(make_context: Any, dataset: str) -> None:
    db, home = make_context("sft", {"dataset": dataset}).db, make_context("sft", {"dataset": dataset}).home
    with pytest.raises(NotFound, match="no reward model 'nobody'"):
        submit(db, "rft", {"reward": "nobody"})
    with pytest.raises(UnknownSetting, match="no reward function 'sweet'"):
        submit(db, "rloo", {"reward_function": "sweet"})
    with pytest.raises(UnknownSetting, match="batch_size .10. must be a multiple of samples .4."):
        submit(db, "rloo", {"reward_function": "no_repetition", "batch_size": 10})
    with pytest.raises(UnknownSetting, match="best_of needs policy A"):
        submit(db, "evaluate", {"a": "tiny", "b": "tiny", "oracle": "shorter", "best_of": 4})
    with pytest.raises(NotFound, match="no reward model 'nobody'"):
        submit(db, "evaluate", {"a": "tiny", "b": "tiny", "oracle": "shorter", "best_of": 4, "picker": "nobody"})
    assert open_picker(db, home, "length_band:1-3").score_all([(PROMPTS[0], "one two")]) == [1.0]


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_a_reply_ends_where_the_template_ends_it(tmp_path: Path, advantage: str) -> None:
    from training.methods.rloo import _build

    base = save_model(tmp_path / "gemma", tokenizer_of(FAMILIES["gemma"]))
    model, tokenizer = load_base(str(base), "cpu")
    settings = RLOO.model_copy(update={"advantage": advantage})
    lora = adapter_config(settings, "CAUSAL_LM")
    trainer = _build(model, tokenizer, PROMPTS, Vowels(), settings, tmp_path / "runs", lora)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in trainer.eos_token_ids
