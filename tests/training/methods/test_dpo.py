"""DPO on a tiny model: the reference is the parent, the checkpoint is one adapter, and a run can be taken up again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotEnoughData, RunCancelled, RunFailed
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy
from feedback.types import PreferencePair
from tests.training.conftest import token_exchange
from training.checkpoints.hashing import tensor_names
from training.checkpoints.loading import load_policy
from training.checkpoints.manifest import ADAPTER_FILE, read_manifest
from training.checkpoints.opening import open_policy
from training.methods import METHODS
from training.methods.dpo import _Watched, train_dpo
from training.models.loading import load_base
from training.models.scoring import reply_log_probs
from training.reporting.reporter import LocalProgress
from training.settings.dpo import DpoSettings

QUICK = DpoSettings(
    dataset="d", min_steps=6, epochs=1, batch_size=4, learning_rate=5e-3, warmup=0.0, save_every=3, anchor=0.0
)
QUIET = QUICK.model_copy(update={"embedding_noise": 0.0})


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def adapter_at(directory: Path, model: Any) -> Path:
    model.save_pretrained(directory)
    return directory


def log_probs(model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], side: str) -> list[float]:
    exchanges = [token_exchange(tokenizer, pair.messages, getattr(pair, side)) for pair in pairs]
    return reply_log_probs(model, tokenizer.pad_token_id, exchanges)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sigmoid", "simpo"])
def test_the_anchor_is_the_chosen_replies_own_likelihood_per_token(
    loss: str, tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    first = {}
    for anchor in (0.0, 0.5):
        settings = QUIET.model_copy(update={"loss": loss, "anchor": anchor, "batch_size": len(pairs), "min_steps": 1})
        progress = LocalProgress()
        train_dpo(str(tiny_base), None, pairs, settings, tmp_path / str(anchor), progress, device="cpu")
        first[anchor] = curve(progress, "loss")[0]
    model, tokenizer = load_base(str(tiny_base), "cpu")
    tokens = sum(len(token_exchange(tokenizer, pair.messages, pair.chosen)[1]) for pair in pairs)
    by_hand = -sum(log_probs(model.eval(), tokenizer, pairs, "chosen")) / tokens
    assert first[0.5] - first[0.0] == pytest.approx(0.5 * by_hand, rel=1e-3)


def test_it_learns_the_taste_and_streams_its_curves(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    progress = LocalProgress()
    outcome = train_dpo(str(tiny_base), None, pairs, QUIET, tmp_path, progress, device="cpu")
    losses = curve(progress, "loss")
    assert len(losses) == 6
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.6
    assert curve(progress, "accuracy")[-1] == 1.0
    assert progress.reports[-1] == (1.0, "step 6 of 6")
    assert any("only 8 pairs" in line for line in progress.lines)
    assert outcome.counts["pairs"] == 8
    assert outcome.figures["loss"] == pytest.approx(sum(losses[-5:]) / 5)
    rewards = curve(progress, "chosen_reward")
    assert outcome.figures["chosen_log_prob_change"] == pytest.approx(sum(rewards[-5:]) / 5 / QUICK.beta)
    base, tokenizer = load_base(str(tiny_base), "cpu")
    gained = sum(log_probs(outcome.model, tokenizer, pairs, "chosen")) - sum(
        log_probs(base, tokenizer, pairs, "chosen")
    )
    lost = sum(log_probs(outcome.model, tokenizer, pairs, "rejected")) - sum(
        log_probs(base, tokenizer, pairs, "rejected")
    )
    assert gained > lost


@pytest.mark.slow
def test_a_parents_adapter_is_continued_and_the_parent_is_the_reference(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    first = train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / "1", LocalProgress(), device="cpu")
    parent = adapter_at(tmp_path / "parent", first.model)
    expected = log_probs(first.model, first.tokenizer, pairs, "chosen")

    progress = LocalProgress()
    second = train_dpo(str(tiny_base), parent, pairs, QUIET, tmp_path / "2", progress, device="cpu")
    # Were the bare base the reference, the first loss would lie where the parent's training ended
    assert curve(progress, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve(progress, "chosen_log_prob")[-1] != pytest.approx(sum(expected) / len(expected), abs=0.05)

    child = adapter_at(tmp_path / "child", second.model)
    assert sorted(path.name for path in child.iterdir() if path.is_dir()) == []
    assert tensor_names(child / ADAPTER_FILE) == tensor_names(parent / ADAPTER_FILE)
    assert not [name for name in tensor_names(child / ADAPTER_FILE) if ".ref." in name]


@pytest.mark.slow
def test_what_was_saved_says_the_same_in_plain_peft(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    outcome = train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / "t", LocalProgress(), device="cpu")
    plain = AutoPeftModelForCausalLM.from_pretrained(adapter_at(tmp_path / "a", outcome.model))
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, outcome.model(input_ids=ids).logits)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_policy_and_leaves_no_seed_behind(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    import torch

    before = torch.random.get_rng_state()
    losses = []
    for attempt in range(2):
        progress = LocalProgress()
        train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / str(attempt), progress, device="cpu")
        losses.append(curve(progress, "loss"))
    assert losses[0] == losses[1]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs_are_refused_with_both_numbers(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, count: int
) -> None:
    with pytest.raises(NotEnoughData, match=rf"'d' has {count} pairs? to train on; at least 2 are needed"):
        train_dpo(str(tiny_base), None, pairs[:count], QUICK, tmp_path, LocalProgress(), device="cpu")


def test_pairs_that_are_too_long_are_left_out_and_counted(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    long = pairs[0].model_copy(update={"chosen": "a" * 400})
    progress = LocalProgress()
    outcome = train_dpo(str(tiny_base), None, [*pairs, long], QUICK, tmp_path, progress, device="cpu")
    assert outcome.counts == {"pairs": 8, "too_long": 1}
    assert any("1 of 9 pairs are longer than 256 tokens" in line for line in progress.lines)
    with pytest.raises(NotEnoughData, match="Of 3 pairs 2 are longer than 256 tokens, which leaves 1"):
        train_dpo(str(tiny_base), None, [pairs[0], long, long], QUICK, tmp_path, LocalProgress(), device="cpu")


def test_a_cancel_is_heard_at_the_next_step(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    class StopAfterTwo(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 2:
                self.stop()

    progress = StopAfterTwo()
    with pytest.raises(RunCancelled):
        train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path, progress, device="cpu")
    assert len(curve(progress, "loss")) == 2


@pytest.mark.slow
def test_a_training_that_diverges_ends_with_advice(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import DPOTrainer

    real = DPOTrainer.compute_loss
    monkeypatch.setattr(
        DPOTrainer, "compute_loss", lambda self, *args, **kwargs: real(self, *args, **kwargs) * torch.tensor(math.nan)
    )
    with pytest.raises(RunFailed, match="diverged. Lower learning_rate"):
        train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path, LocalProgress(), device="cpu")


@pytest.mark.parametrize(("change", "warned"), [(-21.0, True), (-19.0, False), (30.0, False)])
def test_a_policy_that_forgets_how_to_speak_is_reported_while_it_trains(change: float, warned: bool) -> None:
    progress = LocalProgress()
    watched = _Watched(progress)
    for step in range(1, 9):
        watched.metrics(step, loss=0.1, chosen_log_prob_change=change)
    said = [line for line in progress.lines if "chosen replies are 21 nats less likely" in line]
    assert len(said) == warned
    assert curve(progress, "falling_chosen") == [float(warned and step >= 5) for step in range(1, 9)]


@pytest.mark.slow_except("hinge-1.0")
@pytest.mark.parametrize(
    ("loss", "first"), [("sigmoid", math.log(2)), ("robust", math.log(2)), ("hinge", 1.0), ("ipo", 25.0)]
)
def test_each_loss_begins_where_its_formula_says_and_learns(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, loss: str, first: float
) -> None:
    progress = LocalProgress()
    settings = QUIET.model_copy(update={"loss": loss, "beta": 0.1})
    train_dpo(str(tiny_base), None, pairs, settings, tmp_path, progress, device="cpu")
    losses = curve(progress, "loss")
    assert losses[0] == pytest.approx(first, abs=1e-4)
    assert losses[-1] < losses[0]
    assert curve(progress, "chosen_log_prob_change")[0] == pytest.approx(0.0, abs=1e-4)


def test_simpo_counts_per_token_and_needs_no_reference(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    progress = LocalProgress()
    settings = QUIET.model_copy(update={"loss": "simpo", "batch_size": 8, "simpo_beta": 2.0, "simpo_margin": 0.5})
    train_dpo(str(tiny_base), None, pairs, settings, tmp_path, progress, device="cpu")
    base, tokenizer = load_base(str(tiny_base), "cpu")
    per_token = [
        [total / (len(getattr(pair, side)) + 1) for total, pair in zip(found, pairs, strict=True)]
        for side in ("chosen", "rejected")
        for found in [log_probs(base, tokenizer, pairs, side)]
    ]
    by_hand = [math.log1p(math.exp(-(2 * (c - r) - 0.5))) for c, r in zip(*per_token, strict=True)]
    losses = curve(progress, "loss")
    assert losses[0] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)
    assert losses[-1] < losses[0]
    assert curve(progress, "accuracy")[-1] == 1.0
    assert curve(progress, "chosen_log_prob_change")[0] == pytest.approx(0.0, abs=1e-3)


def test_length_weight_leaves_out_what_the_longer_reply_has_beyond_the_shorter(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    pair = pairs[0].model_copy(update={"chosen": "a" * 20, "rejected": "z" * 4})
    settings = QUIET.model_copy(update={"length_weight": 0.0, "batch_size": 2})
    progress = LocalProgress()
    train_dpo(str(tiny_base), None, [pair, pair], settings, tmp_path, progress, device="cpu")
    base, tokenizer = load_base(str(tiny_base), "cpu")
    prompt, whole = token_exchange(tokenizer, pair.messages, "aaaaa")
    shared = whole[:-1]  # the rejected reply has four letters and its end
    expected = reply_log_probs(base, tokenizer.pad_token_id, [(prompt, shared)])[0]
    assert curve(progress, "chosen_log_prob")[0] == pytest.approx(expected, abs=1e-3)
    assert curve(progress, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)


def test_the_reference_is_computed_once_whatever_the_epochs(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DPOTrainer

    calls = []
    real = DPOTrainer.compute_ref_log_probs

    def counted(self: Any, model: Any, inputs: Any) -> Any:
        calls.append(len(inputs["input_ids"]) // 2)
        return real(self, model, inputs)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", counted)
    settings = QUIET.model_copy(update={"epochs": 4})
    train_dpo(str(tiny_base), None, pairs, settings, tmp_path, LocalProgress(), device="cpu")
    assert sum(calls) == len(pairs)


@pytest.mark.slow
def test_a_second_attempt_goes_on_where_the_first_one_was_cut_off(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    class Cut(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 5:
                raise KeyboardInterrupt

    whole, resumed = LocalProgress(), LocalProgress()
    train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / "whole", whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / "cut", Cut(), device="cpu")
    train_dpo(str(tiny_base), None, pairs, QUICK, tmp_path / "cut", resumed, attempt=2, device="cpu")
    assert "going on from checkpoint-3" in resumed.lines
    assert [point.step for point in resumed.points if point.name == "loss"] == [4, 5, 6]
    assert curve(resumed, "loss") == pytest.approx(curve(whole, "loss")[3:], abs=1e-5)


def test_a_run_makes_a_checkpoint_and_a_policy_that_can_be_traced(make_context: Any, dataset: str) -> None:
    config = {"dataset": dataset, "name": "kind", "min_steps": 4, "epochs": 1, "batch_size": 4}
    context = make_context("dpo", config)
    result = METHODS["dpo"].run(context)
    assert (result["checkpoint"], result["policy"]) == ("kind", "kind")
    assert json.loads(json.dumps(result)) == result
    policy, checkpoint = get_policy(context.db, "kind"), get_checkpoint(context.db, "kind")
    assert policy.checkpoint_id == checkpoint.id
    assert policy.run_id == checkpoint.run_id == context.run.id
    assert policy.parent_id == get_policy(context.db, "tiny").id
    directory = context.home.path / checkpoint.path
    manifest = read_manifest(directory)
    assert checkpoint.manifest["dataset_hash"] == manifest.dataset_hash
    assert manifest.reference == policy.parent_id
    assert manifest.config["min_steps"] == 4
    assert load_policy(directory, device="cpu").has_adapter

    child = METHODS["dpo"].run(make_context("dpo", config | {"parent": "kind", "name": "kinder"}))
    assert get_policy(context.db, child["policy"]).parent_id == policy.id
    assert open_policy(context.db, context.home, "kinder", "cpu").has_adapter
    assert not list(context.home.checkpoints.glob(".*"))


def test_a_run_taken_up_after_its_end_was_saved_ends_the_same(make_context: Any, dataset: str) -> None:
    config = {"dataset": dataset, "name": "twice", "min_steps": 2, "epochs": 1, "batch_size": 4}
    context = make_context("dpo", config)
    first = METHODS["dpo"].run(context)
    again = METHODS["dpo"].run(make_context("dpo", config, attempt=2, run=context.run))
    assert (first["checkpoint"], first["policy"]) == (again["checkpoint"], again["policy"])
