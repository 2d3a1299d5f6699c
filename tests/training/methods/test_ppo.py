"""PPO on a tiny model: finds what is rewarded, starts where its parent is, stops, resumes, says what is wrong."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from feedback.errors import Conflict, InvalidInput, NotEnoughData, NotFound, RunCancelled, RunFailed, UnknownSetting
from feedback.store.content.generations import list_generations
from feedback.store.content.prompts import save_prompts
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy
from feedback.store.models.runs import list_metrics, transition_run
from feedback.types import ASKED_HERE, Prompt, RunState
from tests.factories import make_prompt
from training.checkpoints.loading import load_policy
from training.checkpoints.manifest import read_manifest
from training.checkpoints.opening import open_policy, open_reward
from training.methods import METHODS
from training.methods.ppo import learner_of
from training.models.ensemble import members_of
from training.models.loading import load_base
from training.models.scoring import reward_scores
from training.ppo import objectives
from training.ppo.backbone import REFERENCE
from training.ppo.canary import Canary, Snapshot
from training.ppo.learner import STATE_FILE, Learner, lr_multiplier
from training.ppo.metrics import Step
from training.ppo.reward_roles import ScoreScale
from training.ppo.rollouts import PoolPrompt, PromptPool, encode_pool, measure, roll_out
from training.ppo.setup import build_backbone, prepare, split_prompts
from training.reporting.progress import Progress
from training.reporting.reporter import DryRunDone, LocalProgress, Watch
from training.rewards.functions import RewardFunction
from training.rewards.scorers import open_scorer
from training.runs.queue import submit
from training.settings.parsing import parse_settings
from training.settings.ppo import PpoSettings
from training.speedups.core_pool import CorePool

SMALL: dict[str, Any] = {
    "reward_function": "no_repetition",
    "iterations": 3,
    "episodes": 8,
    "batch_size": 4,
    "micro_batch": 3,
    "max_new_tokens": 6,
    "learning_rate": 5e-3,
    "value_learning_rate": 5e-3,
    "lora_rank": 4,
    "canary_every": 2,
    "canary_prompts": 2,
}


def settings_of(**changes: Any) -> PpoSettings:
    return PpoSettings(**(SMALL | changes))


def letters(prompt: str, reply: str) -> float:
    """The share of small letters."""
    return sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply))


def make_learner(
    base: Path | str,
    settings: PpoSettings,
    directory: Path,
    progress: LocalProgress | None = None,
    function: Callable[[str, str], float] = letters,
    prompts: int = 12,
) -> Learner:
    backbone, _, ends, _ = build_backbone(str(base), None, [], settings, "cpu")
    asked = [SimpleNamespace(id=f"p{i}", messages=[{"role": "user", "content": f"Say {i}."}]) for i in range(prompts)]
    pool, _ = encode_pool(backbone.tokenizer, backbone.model, asked, settings.max_new_tokens)
    scorer = RewardFunction("letters", function)
    learning, apart = split_prompts(pool, settings, progress or LocalProgress())
    return Learner(
        backbone,
        scorer,
        PromptPool(learning, settings.seed),
        Canary(apart, scorer, settings),
        settings,
        progress or LocalProgress(),
        directory,
        ends=ends,
    )


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {
        f"{role}.{name}": value for role in learner.rates for name, value in learner.backbone.state_of(role).items()
    }


# Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow_except("leave_one_out")
@pytest.mark.parametrize("baseline", ["value", "leave_one_out"])
def test_on_a_bandit_it_reaches_the_known_optimum(tiny_base: Path, tmp_path: Path, baseline: str) -> None:
    """One token, paid when it is a small letter: about one in ten at first, all of them at the optimum."""
    settings = settings_of(
        iterations=30,
        episodes=64,
        per_prompt=4,
        batch_size=16,
        micro_batch=64,
        max_new_tokens=1,
        beta=0.0,
        kl_budget=1000.0,
        learning_rate=2e-2,
        missing_end_penalty=0.0,
        temperature=0.25,  # at 1 the tiny head cannot say anything more surely
        divergence_stop=10.0,
        baseline=baseline,
        canary_every=0,
        schedule="constant",
    )
    progress = LocalProgress()
    make_learner(tiny_base, settings, tmp_path, progress, prompts=1).learn()
    rewards = curve(progress, "reward")
    assert rewards[0] < 0.3
    assert sum(rewards[-3:]) / 3 > 0.95


def test_at_the_start_the_divergence_is_zero_and_the_ratio_one(tiny_base: Path, tmp_path: Path) -> None:
    settings = settings_of(temperature=0.7, value_warmup=0)  # at 1 a temperature forgotten somewhere would not show
    learner = make_learner(tiny_base, settings, tmp_path)
    rollout = learner.draw()
    assert rollout.reply_kl.abs().max() < 1e-5
    assert (rollout.log_probs * rollout.mask).abs().max() > 0.1
    with learner.backbone.role("policy", training=True) as policy:
        from training.ppo.rollouts import batches, part_of

        for rows, batch in batches(learner.backbone, learner.pool, rollout, 5):
            new, _ = policy.log_probs(batch, settings.temperature)
            ratio = (new - part_of(rollout.log_probs, rows, batch)).exp()
            assert ((ratio - 1) * batch.mask).abs().max() < 1e-5
    step, rows = Step(defaultdict(float)), [0, 1, 2, 3]
    learner._policy_step(rollout, learner.advantages(rollout)[0], rows, int(rollout.mask[rows].sum()), step)
    assert step.sums["divergence"] < 1e-6 and step.sums["clipped"] == 0 and step.sums["policy_norm"] > 0


def test_an_adapted_parent_is_where_it_starts_and_what_it_is_held_to(tiny_base: Path, tmp_path: Path) -> None:
    """The trap: with the bare base as the reference, the divergence would begin where the parent's training ended."""
    settings = settings_of(learning_rate=5e-2, iterations=4, divergence_stop=10.0, kl_budget=1000.0, canary_every=0)
    first = make_learner(tiny_base, settings, tmp_path / "1")
    first.learn()
    first.backbone.save("policy", tmp_path / "parent")
    bare = make_learner(tiny_base, settings, tmp_path / "2")
    backbone, *_ = build_backbone(str(tiny_base), tmp_path / "parent", [], settings, "cpu")
    rollout = roll_out(backbone, bare.pool, bare.scorer, settings, 0, bare.ends, lambda: None)
    measure(backbone, bare.pool, rollout, settings, 4)
    assert rollout.reply_kl.abs().max() < 1e-5
    expected = rollout.log_probs.clone()
    measure(bare.backbone, bare.pool, rollout, settings, 4)
    assert (rollout.log_probs - expected).abs().max() > 1e-2


# Layers with a state in place of keys and values; Bamba's give more than states, Jamba's read a weight past its adapter
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_5_text": {
        "head_dim": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "attn_layer_indices": [1, 3]},
    "jamba": {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_base_with_recurrent_layers_learns(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    words = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = AutoConfig.for_model(kind, num_key_value_heads=2, **sizes, **words, **RECURRENT[kind])
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    settings = settings_of(iterations=2, max_new_tokens=12, value_warmup=0, still_layers=2, canary_every=0)
    learner = make_learner(tmp_path / "base", settings, tmp_path)
    rollout, before = learner.draw(), {name: value.clone() for name, value in weights(learner).items()}
    for row, reply in enumerate(rollout.replies):
        prompt = list(learner.pool.prompts[rollout.prompts[row]].tokens)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        logits[:, learner.backbone.banned] = -torch.inf
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(reply)[:, None])[:, 0]
        torch.testing.assert_close(rollout.log_probs[row, : len(reply)], wanted, rtol=0, atol=1e-4)
    learner.learn()
    after = weights(learner)
    assert all(after[name].isfinite().all() for name in before)
    assert any(not after[name].equal(value) for name, value in before.items() if name.startswith("policy."))
    assert any(not after[name].equal(value) for name, value in before.items() if name.startswith("value."))


def test_only_policy_and_value_change_and_the_base_keeps_every_bit(tiny_base: Path, tmp_path: Path) -> None:
    learner = make_learner(tiny_base, settings_of(canary_every=0), tmp_path)
    before = weights(learner)
    learner.learn()
    bare, _ = load_base(str(tiny_base), "cpu")
    ids = torch.arange(5, 30)[None]
    with learner.backbone.role(REFERENCE), torch.no_grad():
        assert torch.equal(learner.backbone.model(input_ids=ids).logits, bare(input_ids=ids).logits)
    changed = {name for name, value in weights(learner).items() if not torch.equal(value, before[name])}
    upper = {name for name in before if ".layers.0." not in name}  # of two layers the lower one keeps still
    assert changed == upper and any(".layers.1." in name for name in upper)

    every = make_learner(tiny_base, settings_of(canary_every=0, still_layers=0), tmp_path / "every")
    before = weights(every)
    every.learn()
    assert not any(torch.equal(value, before[name]) for name, value in weights(every).items())


def test_frozen_layers_are_run_once_and_change_nothing_else(tiny_base: Path, tmp_path: Path) -> None:
    """The same steps as where the lower layers are run every time and only their weights are frozen."""
    learner = make_learner(tiny_base, settings_of(canary_every=0, epochs=3, divergence_stop=100.0), tmp_path / "kept")
    expected = make_learner(tiny_base, settings_of(canary_every=0, epochs=3, divergence_stop=100.0), tmp_path / "run")
    runs: dict[str, int] = {"kept": 0, "run": 0}

    def count(name: str) -> Callable[..., None]:
        def one(*_: Any) -> None:
            runs[name] += torch.is_grad_enabled()

        return one

    for name, one in (("kept", learner), ("run", expected)):
        one.backbone.layers[0].mlp.register_forward_hook(count(name))
    learner.learn()
    expected.backbone.frozen_layers.cached = lambda *_: nullcontext()  # type: ignore[method-assign, union-attr]
    expected.learn()
    # Two minibatches of two microbatches, three epochs, a value each iteration and a policy once the value is warm
    assert runs == {"kept": 0, "run": 2 * 2 * 3 * (3 + 2)}
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(learner)[name], value, atol=1e-3, rtol=1e-3)


def test_a_value_without_a_reward_model_begins_as_the_policy_and_shares_its_frozen_layers(
    tiny_base: Path, tmp_path: Path
) -> None:
    """One pass of the lower layers for both, until one of the two is unlike the other there."""
    learner = make_learner(tiny_base, settings_of(canary_every=0, micro_batch=8), tmp_path)
    backbone, seen = learner.backbone, []
    for name, value in backbone.adapters.parameters("policy").items():
        assert torch.equal(value, backbone.adapters.parameters("value")[name]), name
    rollout = learner.draw()
    backbone.layers[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    kept = measure(backbone, learner.pool, rollout, learner.settings, 8)
    assert kept["value"] is kept["policy"] and len(seen) == 1
    expected = rollout.values.clone()

    frozen = next(iter(backbone.frozen_parameters("value").values()))
    frozen.data += 0.1  # A of LoRA, whose B is zero: unlike, though it makes the same
    kept = measure(backbone, learner.pool, rollout, learner.settings, 8)
    assert kept["value"] is not kept["policy"] and len(seen) == 3
    torch.testing.assert_close(rollout.values, expected)


def test_a_core_pool_of_any_size_learns_the_same_bit_for_bit(tiny_base: Path, tmp_path: Path) -> None:
    alone, shared = (make_learner(tiny_base, settings_of(micro_batch=2), tmp_path / name) for name in ("alone", "pool"))
    alone.backbone.core_pool, shared.backbone.core_pool = CorePool(), CorePool(3)
    cores = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # a pool of one works in this thread, each of three in a thread of its own
        assert alone.learn() == shared.learn()
    finally:
        torch.set_num_threads(cores)
    for name, value in weights(alone).items():
        assert torch.equal(weights(shared)[name], value), name


def test_while_the_value_warms_up_the_policy_stays(tiny_base: Path, tmp_path: Path) -> None:
    learner = make_learner(tiny_base, settings_of(iterations=2, value_warmup=2, canary_every=0), tmp_path)
    before = weights(learner)
    learner.learn()
    changed = {name.split(".")[0] for name, value in weights(learner).items() if not torch.equal(value, before[name])}
    assert changed == {"value"}


def test_a_value_that_begins_at_zero_expects_the_mean_of_the_parents_scores(tiny_base: Path, tmp_path: Path) -> None:
    """The trap: scores are scaled to mean 0, and a value scaled with them would begin one mean below."""
    learner = make_learner(tiny_base, settings_of(), tmp_path, function=lambda prompt, reply: 9.0 + len(reply))
    rollout = learner.draw()
    assert learner.scale is not None and learner.scale.mean[0] > 9.0
    assert rollout.values.abs().max() == 0.0


def test_the_value_has_the_kind_of_adapter_its_policy_came_with(tiny_base: Path, tmp_path: Path) -> None:
    bottleneck = settings_of(adapter="bottleneck", iterations=1, canary_every=0)
    first = make_learner(tiny_base, bottleneck, tmp_path)
    first.learn()
    first.backbone.save("policy", tmp_path / "parent")
    _, adapters, *_ = build_backbone(str(tiny_base), tmp_path / "parent", [], settings_of(adapter="lora"), "cpu")
    assert adapters.parameters("value").keys() == adapters.parameters("policy").keys()


def test_leave_one_out_has_no_value_and_compares_replies_to_one_prompt(tiny_base: Path, tmp_path: Path) -> None:
    settings = settings_of(baseline="leave_one_out", per_prompt=4, iterations=1)
    learner = make_learner(tiny_base, settings, tmp_path)
    assert "value" not in learner.backbone.adapters.names()
    rollout = learner.draw()
    assert [rollout.prompts[i] for i in range(0, 8, 4)] != rollout.prompts[:2]
    assert rollout.prompts[:4] == rollout.prompts[:1] * 4
    advantages, _ = learner.advantages(rollout)
    expected = objectives.whiten(
        objectives.leave_one_out(rollout.scores, 4)[:, None] * rollout.mask, rollout.mask
    )  # nothing is taken off yet: the divergence is zero
    torch.testing.assert_close(advantages, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UnknownSetting, match="per_prompt=2 or more"):
        parse_settings("ppo", SMALL | {"baseline": "leave_one_out"})
    with pytest.raises(UnknownSetting, match=r"episodes \(8\) must be a multiple of per_prompt \(3\)"):
        parse_settings("ppo", SMALL | {"per_prompt": 3})


@pytest.mark.parametrize("mode", [{}, {"baseline": "leave_one_out", "per_prompt": 4}])
def test_an_adapter_whose_ranks_it_cannot_hand_out_is_refused(mode: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="ppo cannot hand out adalora's ranks: try lora"):
        parse_settings("ppo", SMALL | mode | {"adapter": "adalora"})


def test_a_reply_without_an_end_or_a_body_pays_for_it(tiny_base: Path, tmp_path: Path) -> None:
    learner = make_learner(tiny_base, settings_of(missing_end_penalty=2.5, min_tokens=3), tmp_path)
    rollout = learner.draw()
    rollout.lengths[:3] = [3, 1, 6]
    rollout.ended[:3] = [True, True, False]
    rollout.judged[0, :3] = 0.5
    plain = (0.5 - learner.scale.mean[0]) / learner.scale.deviation[0]  # type: ignore[union-attr]
    assert learner.scored(rollout)[:3].tolist() == pytest.approx([plain, plain - 2.5, plain - 2.5], abs=1e-5)


def test_a_pad_token_that_is_the_end_token_does_no_harm(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "unpadded"
    shutil.copytree(tiny_base, base)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = base / name
        if path.is_file():
            path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    assert load_base(str(base), "cpu")[1].pad_token_id == 1
    runs = [LocalProgress(), LocalProgress()]
    for progress, model in zip(runs, (tiny_base, base), strict=True):
        # Letters leave room for many ends: a mask derived from ids would lose them
        make_learner(model, settings_of(missing_end_penalty=3.0), tmp_path / model.name, progress).learn()
    for name in ("reward", "kl", "tokens", "end_rate", "policy_loss"):
        assert curve(runs[0], name) == pytest.approx(curve(runs[1], name), abs=1e-3), name


# Ends -------------------------------------------------------------------------------------------------------------


def test_a_stop_string_ends_a_reply_as_an_end_token_does(tiny_base: Path, tmp_path: Path) -> None:
    stop = ["a", "e", "i", "o", "u", "ZZ"]
    learner = make_learner(tiny_base, settings_of(iterations=1, stop=stop), tmp_path)
    rollout = learner.draw()
    vowels = {learner.backbone.tokenizer.convert_tokens_to_ids(letter) for letter in stop[:5]}
    stopped = [row for row, reply in enumerate(rollout.replies) if reply[-1] in vowels]
    assert stopped and all(rollout.ended[row] for row in stopped)
    assert not any(text in said for said in rollout.texts for text in stop)
    assert not any(vowels & set(reply[:-1]) for reply in rollout.replies)


def test_a_used_up_budget_ends_the_run_and_keeps_a_policy_within_it(tiny_base: Path, tmp_path: Path) -> None:
    settings = settings_of(
        iterations=40, kl_budget=0.3, learning_rate=2e-2, canary_every=1, beta=0.0, divergence_stop=10.0
    )
    progress = LocalProgress()
    learner = make_learner(tiny_base, settings, tmp_path, progress)
    figures = learner.learn()
    assert learner.iteration < 40 and "kl_budget is 0.3; raise beta" in figures["stopped"]
    assert figures["best_kl"] <= 0.3
    assert any(line.startswith("kept: the policy after iteration") for line in progress.lines)


@pytest.mark.parametrize("canary_every", [0, 40], ids=["no looks", "a look at the parent alone"])
def test_replies_beyond_the_budget_are_not_learnt_from_and_who_drew_them_is_not_kept(
    tiny_base: Path, tmp_path: Path, canary_every: int
) -> None:
    """Where no look found it, what is kept is who drew the last replies within the budget, which is not the parent."""
    settings = settings_of(
        iterations=40, kl_budget=0.3, learning_rate=2e-3, canary_every=canary_every, beta=0.0, divergence_stop=10.0
    )
    progress = LocalProgress()
    learner = make_learner(tiny_base, settings, tmp_path, progress)
    drew: list[dict[str, torch.Tensor]] = []
    real = learner.draw

    def draw() -> Any:
        drew.append(learner.backbone.state_of("policy"))
        return real()

    learner.draw = draw  # type: ignore[method-assign]
    learner.canary._kl = lambda *_: 1000.0 * bool(learner.canary.snapshots)  # type: ignore[method-assign]
    figures = learner.learn()
    distances = curve(progress, "kl")
    assert len(drew) == len(distances) and distances[-1] > 0.3 >= max(distances[:-1])
    assert "kl_budget is 0.3" in figures["stopped"] and figures["iterations"] == len(drew) - 1
    assert len(curve(progress, "value_loss")) == len(drew) - 1
    state = learner.backbone.state_of("policy")
    assert all(torch.equal(state[name], value) for name, value in drew[-2].items())
    assert not all(torch.equal(state[name], value) for name, value in drew[0].items())
    again = make_learner(tiny_base, settings, tmp_path, LocalProgress())
    assert again.learn() == figures
    assert all(torch.equal(state[name], value) for name, value in again.backbone.state_of("policy").items())


def test_what_is_its_parent_unchanged_is_told(tiny_base: Path, tmp_path: Path) -> None:
    progress = LocalProgress()
    learner = make_learner(tiny_base, settings_of(iterations=3, canary_every=1), tmp_path, progress)
    learner.canary._kl = lambda *_: 1000.0 * (len(learner.canary.snapshots) > 1)  # type: ignore[method-assign]
    real = learner.measure

    def measure(rollout: Any) -> None:
        real(rollout)
        if learner.iteration > 1:
            rollout.reference = rollout.reference - 1000.0 * rollout.mask

    learner.measure = measure  # type: ignore[method-assign]
    figures = learner.learn()
    assert figures["best_iteration"] in (0, 1)
    assert any("the policy is its parent unchanged" in line for line in progress.lines)


def test_beta_is_adapted_to_a_target_and_fixed_without(tiny_base: Path, tmp_path: Path) -> None:
    learner = make_learner(
        tiny_base, settings_of(beta=0.05, kl_target=5.0, kl_horizon=100, value_warmup=0), tmp_path / "1"
    )
    learner.learn()
    assert learner.beta == pytest.approx(0.05 * (1 - 0.2 * 8 / 100) ** 3)  # far below its target: cheaper each time
    fixed = make_learner(tiny_base, settings_of(beta=0.05), tmp_path / "2")
    fixed.learn()
    assert fixed.beta == 0.05


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda prompt, reply: math.nan, "gave nan for the reply"),
        (lambda prompt, reply: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
    ids=["not a number", "raises"],
)
def test_a_reward_that_is_none_ends_the_run_in_words(
    tiny_base: Path, tmp_path: Path, function: Callable[[str, str], float], said: str
) -> None:
    with pytest.raises(RunFailed, match=f"The reward function 'letters' {said}"):
        make_learner(tiny_base, settings_of(), tmp_path, function=function).learn()


def test_a_training_that_diverges_ends_with_advice(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = objectives.policy_loss

    def broken(*given: Any) -> objectives.PolicyLoss:
        return real(*given)._replace(loss=real(*given).loss * math.nan)

    monkeypatch.setattr(objectives, "policy_loss", broken)
    with pytest.raises(RunFailed, match=r"policy loss in iteration 2 is nan.*Lower learning_rate \(it was 0.005\)"):
        make_learner(tiny_base, settings_of(), tmp_path).learn()


def test_a_gradient_that_is_no_number_spoils_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = objectives.policy_loss

    def steep(*given: Any) -> objectives.PolicyLoss:
        found = real(*given)
        nothing = (found.loss - found.loss.detach()).abs().sqrt()  # 0, and its slope there is no number
        return found._replace(loss=found.loss + nothing)

    monkeypatch.setattr(objectives, "policy_loss", steep)
    learner = make_learner(tiny_base, settings_of(), tmp_path)
    with pytest.raises(RunFailed, match=r"policy gradient in iteration 2 is nan.*Lower learning_rate"):
        learner.learn()
    assert all(value.isfinite().all() for value in weights(learner).values())


def test_a_cancel_is_heard_within_an_iteration(tiny_base: Path, tmp_path: Path) -> None:
    class StopAfterOne(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if "policy_loss" in values:
                self.stop()

    progress = StopAfterOne()
    with pytest.raises(RunCancelled):
        make_learner(tiny_base, settings_of(iterations=9), tmp_path, progress).learn()
    assert len(curve(progress, "policy_loss")) == 1
    assert (tmp_path / STATE_FILE).is_file()


# Resuming ---------------------------------------------------------------------------------------------------------

PHASES = ("drawing", "scoring", "learning", "saving")


def cut_in(phase: str, learner: Learner, cut: Callable[[], None], iteration: int = 2) -> None:
    """Call ``cut`` in a phase of the iteration of that number (from 0)."""
    places = {
        "drawing": (learner.pool, "drawn"),
        "scoring": (learner.scorer, "scores"),
        "learning": (learner, "_value_step"),
        "saving": (learner.canary, "to_state"),
    }
    owner, name = places[phase]
    real = getattr(owner, name)

    def watched(*given: Any, **more: Any) -> Any:
        if learner.iteration == iteration:
            cut()
        return real(*given, **more)

    # A dataclass or an object alike: the instance's own attribute comes first
    object.__setattr__(owner, name, watched)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_taken_up_again_equals_one_that_was_never_cut(tiny_base: Path, tmp_path: Path, phase: str) -> None:
    settings = settings_of(iterations=4, kl_target=0.1, kl_horizon=8)  # every state that there can be
    whole, progress = make_learner(tiny_base, settings, tmp_path / "whole", LocalProgress()), LocalProgress()
    expected = whole.learn()
    first = make_learner(tiny_base, settings, tmp_path / "cut")
    cut_in(phase, first, interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.learn()
    second = make_learner(tiny_base, settings, tmp_path / "cut", progress)
    figures = second.learn()
    assert any(line.startswith("going on from iteration") for line in progress.lines)
    assert figures == expected
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.methods.test_ppo import cut_in, make_learner, settings_of, weights
import torch
base, directory, phase, out = sys.argv[1:]
torch.set_num_threads(1)
learner = make_learner(base, settings_of(iterations=4), Path(directory))
if phase != "none":
    cut_in(phase, learner, lambda: os.kill(os.getpid(), signal.SIGKILL))
learner.learn()
torch.save(weights(learner), out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_kill_nine_in_any_phase_loses_nothing(tiny_base: Path, tmp_path: Path, phase: str) -> None:
    def run(directory: str, phase: str) -> int:
        out = str(tmp_path / f"{directory}.pt")
        command = [sys.executable, "-c", KILLED, str(tiny_base), str(tmp_path / directory), phase, out]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    assert run("whole", "none") == 0
    assert run("cut", phase) == -signal.SIGKILL
    assert not (tmp_path / "cut.pt").exists()
    assert run("cut", "none") == 0
    whole, cut = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "cut"))
    assert all(torch.equal(cut[name], value) for name, value in whole.items())


def test_a_state_that_was_cut_off_while_it_was_written_does_not_count(tiny_base: Path, tmp_path: Path) -> None:
    learner = make_learner(tiny_base, settings_of(iterations=1), tmp_path)
    learner.learn()
    whole = (tmp_path / STATE_FILE).read_bytes()
    left = tmp_path / f".{STATE_FILE}.partial-00000001"
    left.write_bytes(whole[:100])
    progress = LocalProgress()
    again = make_learner(tiny_base, settings_of(iterations=1), tmp_path, progress)
    again.learn()
    assert progress.lines[0] == "going on from iteration 2"
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(learner).items())


# The canary -------------------------------------------------------------------------------------------------------


def snapshots(*pairs: tuple[float | None, float]) -> list[Snapshot]:
    return [Snapshot(i, train_score, score, 0.0, 1.0, 5.0, 0.0) for i, (train_score, score) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("seen", "alarmed"),
    [
        (snapshots((None, 0.0), (0.1, 0.3), (0.2, 0.2), (0.3, 0.1), (0.4, 0.0)), True),
        (snapshots((0.1, 0.3), (0.2, 0.2), (0.3, 0.1)), False),
        (snapshots((0.1, 0.3), (0.2, 0.2), (0.3, 0.25), (0.4, 0.0)), False),
        (snapshots((0.1, 0.3), (0.2, 0.2), (0.15, 0.1), (0.4, 0.0)), False),
        (snapshots((0.0, 0.0), (0.2, 0.1), (0.3, 0.2), (0.4, 0.3)), False),
    ],
    ids=["three in a row", "two", "the score recovered", "the proxy fell", "both rise"],
)
def test_the_alarm_needs_three_looks_in_a_row(seen: list[Snapshot], alarmed: bool) -> None:
    canary = Canary([], RewardFunction("letters", letters), settings_of())
    canary.snapshots = seen
    assert canary.alarmed() is alarmed


def test_an_alarm_is_heard_and_can_end_the_run(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canary, "alarmed", lambda self: len(self.snapshots) > 1)
    progress = LocalProgress()
    settings = settings_of(iterations=8, stop_on_alarm=True, canary_every=1)
    learner = make_learner(tiny_base, settings, tmp_path, progress)
    figures = learner.learn()
    assert learner.iteration == 1 and "held-out score falls" in figures["stopped"]
    assert any(line.startswith("ALARM: the training score rises") for line in progress.lines)


# The first look is at the parent, the second too, since the value learns alone at first: neither is worth keeping
@pytest.mark.parametrize(("best_look", "kept_iteration"), [(3, 2), (4, 3), (1, 2), (2, 2)])
def test_the_policy_that_is_kept_is_the_one_worth_most(
    tiny_base: Path, tmp_path: Path, best_look: int, kept_iteration: int
) -> None:
    class Fading:
        """Thinks less of every look than of the one before."""

        names = ["fading"]

        def __init__(self) -> None:
            self.asked = 0

        def scores(self, exchanges: Any) -> torch.Tensor:
            self.asked += 1
            return torch.linspace(0, 1, len(exchanges))[None] - 0.1 * self.asked * (self.asked != best_look)

    settings = settings_of(iterations=4, canary_every=1)
    progress = LocalProgress()
    learner = make_learner(tiny_base, settings, tmp_path, progress)
    learner.canary.scorer = Fading()
    kept: list[dict[str, torch.Tensor]] = []
    real = learner.take_snapshot

    def snapshot() -> None:
        kept.append(learner.backbone.state_of("policy"))
        real()

    learner.take_snapshot = snapshot  # type: ignore[method-assign]
    figures = learner.learn()
    assert figures["best_iteration"] == kept_iteration
    state = learner.backbone.state_of("policy")
    for iteration, weights in enumerate(kept):
        same = all(torch.equal(state[name], value) for name, value in weights.items())
        assert same == (iteration == kept_iteration)
    said = [line for line in progress.lines if "compare them before you promote it" in line]
    assert bool(said) == (best_look < 3)


def test_a_snapshot_is_saved_under_the_names_of_earlier_versions() -> None:
    """A run that an earlier version began is resumed, and its result is read by the page."""
    (snapshot,) = snapshots((0.25, 0.5))
    assert list(snapshot.to_state().items())[:3] == [("iteration", 0), ("proxy", 0.25), ("score", 0.5)]
    assert Snapshot.from_state(snapshot.to_state()) == snapshot


def test_a_reply_without_an_end_pays_for_it_in_a_look_too(tiny_base: Path, tmp_path: Path) -> None:
    found = []
    for penalty in (0.0, 2.5):
        learner = make_learner(tiny_base, settings_of(missing_end_penalty=penalty), tmp_path / str(penalty))
        learner.take_snapshot()
        found.append(learner.canary.snapshots[0])
    free, paid = found
    assert free.end_rate == paid.end_rate < 1
    assert free.score - paid.score == pytest.approx(2.5 * (1 - paid.end_rate))


def test_prompts_kept_apart_are_never_learnt_from() -> None:
    prompts = [PoolPrompt(f"p{i}", [], (i,)) for i in range(20)]
    progress = LocalProgress()
    learning, apart = split_prompts(prompts, settings_of(canary_prompts=10), progress)
    assert len(apart) == 4 and not {p.id for p in apart} & {p.id for p in learning} and len(learning) == 16
    assert progress.lines == ["4 prompts are kept apart instead of 10: there are only 20 in all"]
    assert split_prompts(prompts, settings_of(canary_prompts=10), progress)[1] == apart
    assert split_prompts(prompts, settings_of(canary_every=0), progress)[1] == []


def test_every_prompt_is_drawn_once_before_any_is_drawn_again() -> None:
    pool = PromptPool([PoolPrompt(f"p{i}", [], (i,)) for i in range(7)], seed=1)
    first, second = pool.drawn(0, 7), pool.drawn(7, 7)
    assert sorted(first) == sorted(second) == list(range(7)) and first != second
    assert pool.drawn(3, 8) == [*first[3:], *second[:4]]


def test_scores_are_scaled_by_the_parents_own_replies() -> None:
    scale = ScoreScale.fitted(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    assert (scale.mean, scale.deviation) == ([2.0, 5.0], [1.0, 1.0])  # scorers that never differ are not blown up
    rewards = torch.tensor([[2.0, 90.0], [5.0, 7.0]])
    assert scale.applied(rewards, "mean", 1.0, clip=5.0).tolist() == [0.0, 5.0]
    assert scale.applied(rewards, "worst", 1.0, clip=5.0).tolist() == [0.0, 2.0]


def test_the_step_size_rises_and_falls_as_asked() -> None:
    steady = settings_of(schedule="constant", iterations=4)
    assert [lr_multiplier(steady, i) for i in range(4)] == [1.0] * 4
    linear = settings_of(schedule="linear", iterations=4)
    assert [lr_multiplier(linear, i) for i in range(4)] == [1.0, 0.75, 0.5, 0.25]
    risen = settings_of(schedule="cosine", iterations=8, warmup=0.25)
    factors = [lr_multiplier(risen, i) for i in range(8)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and factors[2:] == sorted(factors[2:], reverse=True)


# As a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def reward(make_context: Any, dataset: str) -> str:
    config = {"dataset": dataset, "name": "rm", "min_steps": 6, "epochs": 1, "batch_size": 4, "lora_rank": 4}
    return str(METHODS["reward"].run(make_context("reward", config))["checkpoint"])


def run_config(**changes: Any) -> dict[str, Any]:
    config = {key: value for key, value in SMALL.items() if key != "reward_function"}
    return config | {"iterations": 2, "name": "kind"} | changes


def test_a_run_makes_a_policy_that_can_be_traced_and_keeps_its_rollouts(
    make_context: Any, dataset: str, reward: str, tiny_base: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    context = make_context("ppo", run_config(reward=reward, dataset=dataset))
    result = METHODS["ppo"].run(context)
    assert (result["checkpoint"], result["policy"]) == ("kind", "kind")
    assert json.loads(json.dumps(result)) == result
    policy, checkpoint = get_policy(context.db, "kind"), get_checkpoint(context.db, "kind")
    assert policy.parent_id == get_policy(context.db, "tiny").id and policy.run_id == context.run.id
    directory = context.home.path / checkpoint.path
    manifest = read_manifest(directory)
    assert manifest.reference == policy.parent_id and manifest.method == "ppo"
    assert load_policy(directory, device="cpu").has_adapter
    assert AutoPeftModelForCausalLM.from_pretrained(directory) is not None
    assert manifest.heads == ["value"] and (directory / "value" / "head.safetensors").is_file()
    names = {point.name for point in context.progress.points}
    shown = {"reward", "kl", "entropy", "clip_rate", "explained_variance", "end_rate", "tokens", "canary_score"}
    assert shown <= names

    kept = list_generations(context.db, run_id=context.run.id)
    assert 0 < len(kept) <= 16 and {row.policy_id for row in kept} == {policy.id}
    assert {row.sampling["iteration"] for row in kept} == {0, 1}
    assert all(math.isfinite(row.sampling["score"]) and abs(row.sampling["kl"]) < 100 for row in kept)
    assert not (context.run_dir / "trainer").exists()

    again = METHODS["ppo"].run(make_context("ppo", run_config(reward=reward), attempt=2, run=context.run))
    assert again["policy"] == "kind" and len(list_generations(context.db, run_id=context.run.id)) == len(kept)

    child = make_context("ppo", run_config(reward=f"{reward}, {reward}", parent="kind", name="kinder"))
    METHODS["ppo"].run(child)
    assert curve(child.progress, "kl")[0] == pytest.approx(0.0, abs=1e-4)
    assert curve(child.progress, "reward_spread") == [0.0, 0.0]
    assert open_policy(context.db, context.home, "kinder", "cpu").has_adapter
    assert get_policy(context.db, "kinder").parent_id == policy.id


@pytest.mark.slow
def test_each_member_of_an_ensemble_judges_and_the_first_is_the_values_start(
    make_context: Any, dataset: str, tiny_base: Path
) -> None:
    config = {"dataset": dataset, "name": "jury", "members": 2, "pooling": "sum", "min_steps": 6, "epochs": 1}
    METHODS["reward"].run(make_context("reward", config | {"batch_size": 4, "lora_rank": 4}))
    context = make_context("ppo", run_config(reward="jury", dataset=dataset, combine="uncertain", doubt=0.7))
    ready = prepare(context)
    assert [model.name for model in ready.scorer.models] == ["jury 1", "jury 2"]
    exchanges: Any = [([{"role": "user", "content": "Say 1."}], reply) for reply in ("yes yes", "no", "perhaps so")]
    found = ready.scorer.scores(exchanges)
    members = members_of(open_reward(context.db, context.home, "jury", "cpu"))
    for own, member in zip(found, members, strict=True):
        assert own.tolist() == pytest.approx(reward_scores(member, exchanges), abs=1e-4)
    assert not torch.allclose(found[0], found[1])
    alone = open_scorer(context.db, context.home, "jury", None, "uncertain", 0.7, "cpu")
    assert alone.scores(exchanges).tolist() == [pytest.approx(own.tolist(), abs=1e-4) for own in found]
    assert ready.scorer.score_all(exchanges) == pytest.approx(alone.score_all(exchanges), abs=1e-4)
    assert alone.score_all(exchanges) != pytest.approx(alone.scores(exchanges).mean(0).tolist(), abs=1e-6)
    value, first = ready.backbone.state_of("value"), ready.backbone.state_of("reward_0")
    assert value.keys() == first.keys() and all(torch.equal(value[name], first[name]) for name in value)
    result = METHODS["ppo"].run(context)
    assert result["policy"] == "kind" and min(curve(context.progress, "reward_spread")) > 0


def test_a_dry_run_tells_what_to_expect_and_leaves_nothing(make_context: Any, dataset: str) -> None:
    context = make_context("ppo", run_config(reward_function="no_repetition", iterations=7))
    context.progress.watch = Watch(dry_run=True)
    with pytest.raises(DryRunDone) as done:
        METHODS["ppo"].run(context)
    figures = done.value.figures
    assert figures["seconds_in_all"] == pytest.approx(7 * figures["seconds_per_step"], abs=1)
    assert figures["dry_run"] is True and figures["peak_memory_mb"] > 50
    assert list_generations(context.db, run_id=context.run.id) == [] and not context.progress.points


@pytest.mark.slow
def test_no_point_of_a_curve_is_told_twice_or_lost_by_going_on(make_context: Any, dataset: str) -> None:
    config = run_config(reward_function="no_repetition", iterations=3, canary_every=1)
    whole = make_context("ppo", config)
    METHODS["ppo"].run(whole)
    expected = [(point.name, point.step) for point in whole.progress.points]
    assert len(set(expected)) == len(expected)

    for phase in PHASES:
        context = make_context("ppo", config | {"name": phase})
        transition_run(context.db, context.run.id, expected=[RunState.queued], to=RunState.running)
        with Progress(context.db, context.home, context.run.id) as progress:
            again = replace(context, progress=progress)
            learner = learner_of(again, prepare(again))
            cut_in(phase, learner, interrupt, 0 if phase == "learning" else 1)
            with pytest.raises(KeyboardInterrupt):
                learner.learn()
        with Progress(context.db, context.home, context.run.id) as progress:
            again = replace(context, progress=progress)
            learner_of(again, prepare(again)).learn()
        points = [(row.name, row.step) for row in list_metrics(context.db, context.run.id)]
        assert sorted(points) == sorted(expected), phase


def test_rollouts_saved_twice_are_there_once(make_context: Any, dataset: str) -> None:
    context = make_context("ppo", run_config(reward_function="no_repetition", canary_every=0))

    class Cut(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS["ppo"].run(SimpleNamespace(**(vars(context) | {"progress": Cut(), "run_dir": context.run_dir})))
    (context.run_dir / "trainer" / STATE_FILE).unlink()  # as if it were killed before the state was written
    before = [row.id for row in list_generations(context.db, run_id=context.run.id)]
    METHODS["ppo"].run(context)
    after = [row.id for row in list_generations(context.db, run_id=context.run.id)]
    assert before and set(before) < set(after) and len(after) == len(set(after))


def test_a_reward_model_of_another_base_is_refused_first(
    make_context: Any, reward: str, tiny_base: Path, tmp_path: Path
) -> None:
    from feedback.store.models.policies import save_policy
    from feedback.types import Policy

    other, tokenizer = load_base(str(tiny_base), "cpu")
    with torch.no_grad():
        other.model.norm.weight.mul_(1.5)
    for part in (other, tokenizer):
        part.save_pretrained(tmp_path / "other")
    context = make_context("ppo", run_config(reward=reward, parent="foreign"))
    save_policy(context.db, Policy(name="foreign", base=str(tmp_path / "other")))
    with pytest.raises(
        InvalidInput, match=r"'rm' was trained on the base .*cannot share one model.*studio train reward"
    ):
        METHODS["ppo"].run(context)
    for judges in ({"reward": reward}, {"reward_function": "no_repetition", "canary_reward": reward}):
        with pytest.raises(InvalidInput, match="'rm' was trained on the base"):
            submit(context.db, "ppo", {**judges, "parent": "foreign"})


def test_a_judge_of_the_looks_that_is_none_is_refused_before_the_queue(make_context: Any, reward: str) -> None:
    db = make_context("ppo", run_config(reward=reward)).db
    with pytest.raises(NotFound, match=r"no reward model 'nobody'. Known: rm"):
        submit(db, "ppo", {"reward": reward, "canary_reward": "nobody"})


def test_a_policys_checkpoint_cannot_be_the_judge(make_context: Any, dataset: str) -> None:
    METHODS["dpo"].run(make_context("dpo", {"dataset": dataset, "name": "p1", "min_steps": 1, "epochs": 1}))
    with pytest.raises(UnknownSetting, match="is a policy, not a reward model. Reward models: "):
        METHODS["ppo"].run(make_context("ppo", run_config(reward="p1")))
    with pytest.raises(UnknownSetting, match="'p1' is a policy, not a reward model. Reward models: none yet; train"):
        submit(make_context("ppo", run_config(reward="p1")).db, "ppo", {"reward": "p1"})
    with pytest.raises(Conflict, match="already a checkpoint 'p1'"):
        METHODS["ppo"].run(make_context("ppo", run_config(reward_function="no_repetition", name="p1")))


def test_prompts_longer_than_the_window_are_left_out_or_refused(make_context: Any) -> None:
    context = make_context("ppo", run_config(reward_function="no_repetition", iterations=1, canary_every=0))
    make_prompt(context.db, "Say " + "very " * 60)
    with pytest.raises(NotEnoughData, match="None of the 1 prompts leaves room for 6 tokens.*Lower max_new_tokens"):
        METHODS["ppo"].run(context)
    for number in range(4):
        make_prompt(context.db, f"Say {number}.")
    METHODS["ppo"].run(context)
    assert any("1 of 5 prompts are left out" in line for line in context.progress.lines)
    assert len({row.prompt_id for row in list_generations(context.db, run_id=context.run.id)}) <= 4


def test_without_prompts_it_says_how_to_get_some(make_context: Any) -> None:
    context = make_context("ppo", run_config(reward_function="no_repetition"))
    asked = Prompt(messages=[{"role": "user", "content": "Somebody's test question."}], tags=[ASKED_HERE])
    save_prompts(context.db, [asked])  # came in with a request for replies: nothing to train on
    with pytest.raises(NotEnoughData, match="studio prompts import"):
        METHODS["ppo"].run(context)
