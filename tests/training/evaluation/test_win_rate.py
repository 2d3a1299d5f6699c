"""Scorecards: arithmetic on replies made by hand, and a comparison of real tiny policies."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotEnoughData
from feedback.store.content.prompts import save_prompts
from feedback.types import Prompt, Run, SamplingSettings, Split
from training.checkpoints.manifest import read_manifest
from training.checkpoints.opening import open_policy
from training.evaluation import reward_accuracy, win_rate
from training.evaluation.divergence import divergence
from training.evaluation.reward_accuracy import measure_reward, reward_figures
from training.evaluation.win_rate import compare_policies, describe_replies, picked, win_means
from training.generation.sampling import Reply, sample
from training.methods import METHODS
from training.models.chat import encode_prompt
from training.models.loading import LoadedPolicy, LoadedReward, load_base, load_scorer
from training.rewards.oracles import get_oracle
from training.settings.parsing import parse_settings

SHORT = SamplingSettings(max_new_tokens=10)
PROMPTS = [[{"role": "user", "content": f"Say {number}."}] for number in range(6)]


def reply(text: str, reason: str = "stop") -> Reply:
    return Reply(text, reason, len(text.split()), 0, ())


@pytest.fixture(scope="module")
def policy(tiny_base: Path) -> LoadedPolicy:
    return LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))


def nudged(base: Path) -> LoadedPolicy:
    """The tiny policy, less sure of everything."""
    import torch

    model, tokenizer = load_base(str(base), "cpu")
    with torch.no_grad():
        model.model.norm.weight.mul_(0.5)
    return LoadedPolicy(model, tokenizer, str(base))


def test_every_reply_meets_every_other_and_ties_count_half() -> None:
    a = [[reply("a"), reply("a b c")], [reply("a b"), reply("a b")]]
    b = [[reply("a b"), reply("a b")], [reply("a b"), reply("a b")]]
    means, ties = win_means(get_oracle("shorter"), PROMPTS[:2], a, b)
    assert means == [0.5, 0.5]
    assert ties == 0.5
    means, _ = win_means(get_oracle("longer"), PROMPTS[:1], [[reply("a b c")]], [[reply("a")]])
    assert means == [1.0]


def test_a_reply_without_an_answer_loses_whoever_judges() -> None:
    cut = replace(reply("", "length"), reasoning="Let me see", unfinished=True)
    means, ties = win_means(get_oracle("shorter"), PROMPTS[:2], [[cut], [cut]], [[reply("a b")], [cut]])
    assert (means, ties) == ([0.0, 0.5], 0.5)
    (best,) = picked(get_oracle("shorter"), PROMPTS[:1], [[cut, reply("a b")]], 2)
    assert best == [reply("a b")], "nor is it picked"
    described = describe_replies([[replace(reply("a b"), reasoning="one two three four")]])
    assert (described["length"], described["tokens"]) == (2, 2)


def test_noise_pulls_a_certain_win_towards_a_coin() -> None:
    a, b = [[reply("a")] * 10] * 40, [[reply("a b")] * 10] * 40
    means, _ = win_means(get_oracle("shorter"), PROMPTS[:1] * 40, a, b, 0.25, random.Random(1))
    assert sum(means) / len(means) == pytest.approx(0.75, abs=0.03)


def test_a_policy_is_as_good_as_itself_and_has_not_moved(policy: LoadedPolicy) -> None:
    seen: list[float] = []
    figures = compare_policies(
        policy,
        policy,
        get_oracle("shorter"),
        PROMPTS,
        samples=3,
        sampling=SHORT,
        on_progress=lambda fraction, _: seen.append(fraction),
    )
    assert figures["low"] < 0.5 < figures["high"]
    assert figures["kl"] == pytest.approx(0.0, abs=1e-4)
    assert figures["n_prompts"] == 6
    assert seen == sorted(seen)
    assert len(seen) > 2 * SHORT.max_new_tokens, "progress moves with each token"
    assert figures["length_before"] > 0


def test_the_same_seed_gives_the_same_scorecard(policy: LoadedPolicy, tiny_base: Path) -> None:
    def card(seed: int) -> dict[str, Any]:
        other = nudged(tiny_base)
        return compare_policies(policy, other, get_oracle("longer"), PROMPTS, sampling=SHORT, seed=seed, noise=0.2)

    assert card(4) == card(4)
    assert card(4) != card(5)


def test_the_distance_is_the_mean_divergence_along_a_policys_own_replies(policy: LoadedPolicy, tiny_base: Path) -> None:
    import torch

    other = nudged(tiny_base)
    replies = sample(policy, PROMPTS, 12, SHORT, seed=2)
    moved = divergence(policy, other, PROMPTS, replies)
    assert moved.per_reply > 2 * moved.error > 0

    def log_probs(model: Any, prompt: list[int], ids: Sequence[int]) -> Any:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + list(ids)])).logits[0].log_softmax(-1)
        return logits[len(prompt) - 1 : len(prompt) - 1 + len(ids)]

    by_hand = []
    for messages, own in zip(PROMPTS, replies, strict=True):
        prompt = encode_prompt(policy.tokenizer, messages)
        for one in own:
            ours, theirs = (log_probs(model, prompt, one.token_ids) for model in (policy.model, other.model))
            by_hand.append(torch.nn.functional.kl_div(theirs, ours, log_target=True, reduction="sum").item())
    assert moved.per_reply == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-3)
    tokens = sum(len(r.token_ids) for own in replies for r in own)
    assert moved.per_token == pytest.approx(sum(by_hand) / tokens, abs=1e-4)


def test_the_distance_is_not_below_zero_however_coldly_replies_were_drawn(
    policy: LoadedPolicy, tiny_base: Path
) -> None:
    other = nudged(tiny_base)  # less sure of everything, so that greedy replies are likelier to the policy
    cold = SamplingSettings(max_new_tokens=10, temperature=0.1)
    for one, two in ((policy, other), (other, policy)):
        moved = divergence(one, two, PROMPTS, sample(one, PROMPTS, 4, cold, seed=2))
        assert moved.per_reply > 0.0


def test_replies_are_described() -> None:
    card = describe_replies([[reply("a b"), reply("a b", "length")], [reply("c d e f"), reply("g h i j")]])
    assert card == {"length": 3.0, "tokens": 3.0, "ended": 0.75, "distinct": 0.75}


def test_prompts_that_do_not_fit_are_counted_and_too_few_refused(policy: LoadedPolicy) -> None:
    long = [{"role": "user", "content": "x" * 250}]
    figures = compare_policies(policy, policy, get_oracle("shorter"), [*PROMPTS, long], samples=1, sampling=SHORT)
    assert (figures["n_prompts"], figures["n_refused"]) == (6, 1)
    with pytest.raises(NotEnoughData, match="1 of 2 evaluation prompts fit both models; at least 2"):
        compare_policies(policy, policy, get_oracle("shorter"), [PROMPTS[0], long], sampling=SHORT)


def test_models_that_read_in_other_tokens_are_compared_without_a_distance(
    policy: LoadedPolicy, tiny_base: Path, tmp_path: Path
) -> None:
    """Each way round: one's ids mean other words to the other, or lie beyond its vocabulary."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_tokens(["Say", "reply"])
    config = LlamaConfig.from_pretrained(tiny_base, vocab_size=len(tokenizer), max_position_embeddings=128)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    other = LoadedPolicy(*load_base(str(tmp_path), "cpu"), str(tmp_path))
    long = [{"role": "user", "content": "x" * 150}]  # fits the window of one alone
    for pair in ((policy, other), (other, policy)):
        figures = compare_policies(*pair, get_oracle("shorter"), [*PROMPTS, long], samples=1, sampling=SHORT)
        assert (figures["kl"], figures["kl_error"], figures["kl_per_token"]) == (None, None, None)
        assert (figures["n_prompts"], figures["n_refused"]) == (6, 1) and 0 <= figures["win_rate"] <= 1


class LengthReward:
    """Stands where a reward model's scores are asked for: the more words the better."""

    @staticmethod
    def scores(reward: Any, exchanges: Sequence[tuple[Any, str]], batch_size: int = 64) -> list[float]:
        return [float(len(text.split())) for _, text in exchanges]


def test_a_reward_models_card(monkeypatch: pytest.MonkeyPatch, policy: LoadedPolicy) -> None:
    monkeypatch.setattr(reward_accuracy, "reward_scores", LengthReward.scores)
    reward = LoadedReward(None, policy.tokenizer, "")
    pairs = [(PROMPTS[0], "a b", "a")] * 6 + [(PROMPTS[0], "a", "a b")] * 2 + [(PROMPTS[0], "a", "b")] * 2
    right = reward_figures(reward, get_oracle("longer"), pairs)
    assert (right["accuracy"], right["n_pairs"], right["ties"]) == (1.0, 8, 2)
    assert (right["length_only_accuracy"], right["oracle_consistency"], right["ceiling"]) == (1.0, 1.0, 1.0)
    assert reward_figures(reward, get_oracle("shorter"), pairs)["accuracy"] == 0.0
    with pytest.raises(NotEnoughData, match="can tell apart 0 of 10 pairs"):
        reward_figures(reward, get_oracle("keyword:sea"), pairs)


def test_a_noisy_judge_is_found_inconsistent(monkeypatch: pytest.MonkeyPatch, policy: LoadedPolicy) -> None:
    monkeypatch.setattr(reward_accuracy, "reward_scores", LengthReward.scores)
    pairs = [(PROMPTS[0], "a b", "a")] * 2000
    reward = LoadedReward(None, policy.tokenizer, "")
    figures = reward_figures(reward, get_oracle("longer"), pairs, noise=0.1, seed=2)
    # Two judgments agree when both or neither are flipped: 0.9² + 0.1²; the best possible accuracy is then 0.9
    assert figures["oracle_consistency"] == pytest.approx(0.82, abs=0.03)
    assert figures["ceiling"] == pytest.approx(0.9, abs=0.02)
    assert figures["accuracy"] == pytest.approx(0.9, abs=0.02)


def test_fresh_pairs_are_drawn_for_a_reward_model(policy: LoadedPolicy, tiny_base: Path) -> None:
    reward = LoadedReward(*load_scorer(str(tiny_base), "cpu"), str(tiny_base))
    figures = measure_reward(reward, policy, get_oracle("longer"), PROMPTS * 3, samples=4, sampling=SHORT)
    assert figures["n_pairs"] + figures["ties"] == 6 * 3 * 2
    assert 0.0 <= figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"] <= 1.0


def test_an_evaluation_run_saves_its_scorecard(make_context: Any, tiny_policy: Any) -> None:
    from feedback.store.models.scorecards import list_scorecards
    from training.methods.evaluate import run as evaluate

    prompts = [Prompt(messages=messages, split=Split.evaluation) for messages in PROMPTS]
    settings = {"a": tiny_policy.name, "b": tiny_policy.name, "oracle": "shorter", "max_new_tokens": 8, "samples": 1}
    context = make_context("evaluate", settings)
    with pytest.raises(NotEnoughData, match="0 evaluation prompts"):
        evaluate(context)
    save_prompts(context.db, prompts)
    result = evaluate(context)
    card = list_scorecards(context.db, subject_id=tiny_policy.id)[0]
    assert (card.id, card.kind, card.run_id) == (result["scorecard"], "win_rate", context.run.id)
    assert card.figures["win_rate"] == result["win_rate"]
    assert card.settings["oracle"] == "shorter"
    assert parse_settings("evaluate", card.settings) == context.settings.resolved(SamplingSettings())
    assert (card.settings["temperature"], card.settings["max_new_tokens"]) == (1.0, 8)  # what was really used
    assert Run(method="evaluate", result=result)


@pytest.mark.slow
def test_a_measured_checkpoint_carries_its_newest_scorecard(make_context: Any, tiny_policy: Any, dataset: str) -> None:
    quick = {"dataset": dataset, "min_steps": 1, "epochs": 1}
    METHODS["dpo"].run(make_context("dpo", quick | {"name": "p1"}))
    context = make_context("reward", quick | {"name": "rm"})
    METHODS["reward"].run(context)
    apart = [[{"role": "user", "content": f"Tell of {number}."}] for number in range(6)]
    save_prompts(context.db, [Prompt(messages=messages, split=Split.evaluation) for messages in apart])
    drawn = {"oracle": "shorter", "max_new_tokens": 8, "samples": 1}
    for seed in (0, 1):
        result = METHODS["evaluate"].run(make_context("evaluate", drawn | {"a": "p1", "b": "tiny", "seed": seed}))
        found = read_manifest(context.home.checkpoints / "p1").scorecard
        assert found is not None and found["id"] == result["scorecard"] and found["settings"]["seed"] == seed
        assert found["figures"]["win_rate"] == result["win_rate"]
        assert result["gate"]["verdict"] in {"HOLD", "REJECT", "PROMOTE"}
        assert "judged by shorter" in result["gate"]["reasons"][0]["words"]
    other = METHODS["evaluate"].run(make_context("evaluate", drawn | {"a": "tiny", "b": "p1"}))
    assert "gate" not in other, "only who is measured against the champion asks to serve"
    METHODS["evaluate"].run(make_context("evaluate", drawn | {"reward": "rm", "samples": 4, "max_new_tokens": 16}))
    found = read_manifest(context.home.checkpoints / "rm").scorecard
    assert found is not None and found["kind"] == "reward_accuracy"
    assert open_policy(context.db, context.home, "p1", "cpu").has_adapter  # it loads as before


@pytest.mark.parametrize(("precision", "lines"), [("auto", 2), ("fp32", 0)])
def test_both_policies_draw_in_bf16_where_that_pays(
    make_context: Any, tiny_policy: Any, monkeypatch: pytest.MonkeyPatch, precision: str, lines: int
) -> None:
    monkeypatch.setattr("training.speedups.half_linears.half_pays", lambda model: True)
    settings = {"a": tiny_policy.name, "b": tiny_policy.name, "oracle": "shorter", "max_new_tokens": 8, "samples": 1}
    context = make_context("evaluate", settings | {"precision": precision})
    save_prompts(context.db, [Prompt(messages=messages, split=Split.evaluation) for messages in PROMPTS])
    METHODS["evaluate"].run(context)
    assert sum("bf16" in line for line in context.progress.lines) == lines


def test_of_several_replies_the_one_the_picker_likes_best_is_given() -> None:
    class Longest:
        def score_all(self, exchanges: Sequence[Any]) -> list[float]:
            return [float(len(text)) for _, text in exchanges]

    replies = [[reply("a"), reply("a b c"), reply("a b"), reply("b"), reply("c"), reply("d")]]
    chosen = win_rate.picked(Longest(), PROMPTS[:1], replies, 3)
    assert [[one.text for one in own] for own in chosen] == [["a b c", "b"]]


def test_the_best_of_several_beats_its_own_policy_without_training(policy: LoadedPolicy) -> None:
    class Short:
        def score_all(self, exchanges: Sequence[Any]) -> list[float]:
            return [-float(text.count("e")) - 0.01 * len(text) for _, text in exchanges]

    class Judge:
        rule = "short"

        def score_all(self, exchanges: Sequence[Any]) -> list[float]:
            return Short().score_all(exchanges)

    figures = compare_policies(
        policy,
        policy,
        Judge(),
        PROMPTS,
        sampling=SHORT,
        best_of=6,
        picker=Short(),  # type: ignore[arg-type]
    )
    assert figures["low"] > 0.5
    assert figures["best_of"] == 6
    assert figures["best_of_kl"] == pytest.approx(math.log(6) - 5 / 6)
    assert figures["kl"] == pytest.approx(0.0, abs=1e-4)
