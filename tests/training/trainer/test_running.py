"""What the trainers share: the order of the pairs, and arguments that fit the size of the model."""

from __future__ import annotations

import itertools
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import CheckpointError, RunFailed
from feedback.types import PreferencePair
from training.data.pairs import LikeLengths, prompt_groups
from training.methods import METHODS
from training.methods.dpo import train_dpo
from training.methods.reward import train_reward
from training.models.loading import load_base
from training.reporting.reporter import DryRunDone, LocalProgress, Watch
from training.settings.dpo import DpoSettings
from training.settings.reward import RewardSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.running import adapter_writer


@pytest.mark.parametrize("count", [1, 5, 16, 64, 65, 200])
def test_an_epoch_holds_every_pair_once(count: int) -> None:
    rng = random.Random(1)
    order = LikeLengths([rng.randint(20, 120) for _ in range(count)], 16, seed=3)
    assert sorted(order) == list(range(count))
    assert len(order) == count


def test_rows_of_one_group_follow_each_other_and_each_is_read_once() -> None:
    rng = random.Random(5)
    rows = [{"length": rng.randint(20, 120), "group": f"p{number % 23}"} for number in range(64)]
    groups = prompt_groups(rows)
    order = list(LikeLengths([row["length"] for row in rows], 8, seed=1, groups=groups))
    assert sorted(order) == list(range(64)) and len(groups) == 23
    changes = sum(rows[one]["group"] != rows[next_]["group"] for one, next_ in itertools.pairwise(order))
    assert changes <= 22 + 64 // 8, "a batch or a sorted span may end within a group, nothing else parts one"


def test_the_order_of_rows_without_a_group_is_that_of_runs_begun_before_groups() -> None:
    lengths = [7 * number % 11 + 20 for number in range(12)]
    groups = prompt_groups([{"length": length} for length in lengths])
    before = [0, 11, 8, 5, 2, 10, 7, 4, 1, 9, 6, 3]  # a run that is resumed must meet the rows it had not seen
    assert list(LikeLengths(lengths, 4, seed=3, groups=groups)) == list(LikeLengths(lengths, 4, seed=3)) == before


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [random.Random(2).randint(20, 120) for _ in range(100)]
    order, same = LikeLengths(lengths, 16, seed=3), LikeLengths(lengths, 16, seed=3)
    first = list(order)
    assert first == list(same) == list(order)
    order.set_epoch(1)
    second = list(order)
    assert second != first
    same.set_epoch(1)
    assert list(same) == second
    assert list(LikeLengths(lengths, 16, seed=4)) != first


def test_batches_are_padded_less_than_chance_would() -> None:
    rng = random.Random(2)
    lengths = [rng.randint(20, 120) for _ in range(192)]

    def padded(order: list[int]) -> int:
        return sum(16 * max(lengths[i] for i in order[start : start + 16]) for start in range(0, 192, 16))

    assert padded(list(LikeLengths(lengths, 16, seed=0))) < 0.8 * padded(list(range(192)))


def test_nothing_is_reported_anywhere_and_small_models_spare_no_memory(tiny_base: Path, tmp_path: Path) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    arguments = trainer_arguments(
        DpoSettings(dataset="d", batch_size=6, micro_batch=2), model, [20] * 100, tmp_path, "fp32"
    )
    assert arguments["report_to"] == []
    assert arguments["push_to_hub"] is False
    assert (arguments["bf16"], arguments["use_cpu"], arguments["gradient_checkpointing"]) == (False, True, False)
    assert (arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]) == (2, 3)
    assert arguments["max_steps"] == 90


def test_a_disk_that_fills_up_during_training_is_named(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    settings = DpoSettings(dataset="d", min_steps=3, epochs=1, save_every=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"state to resume from could not be written: the disk of .* is full"):
            train_dpo(str(tiny_base), None, pairs, settings, tmp_path, LocalProgress(), device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Cut(LocalProgress):
    """Ends the process's work right after step 6, as a kill would."""

    def metrics(self, step: int, **values: float) -> None:
        super().metrics(step, **values)
        if step == 6:
            raise KeyboardInterrupt


def weights_of(model: Any) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.slow_except("dpo on a parent-adalora")
@pytest.mark.parametrize("adapter", ["lora", "bottleneck", "adalora"])
@pytest.mark.parametrize("method", ["reward", "dpo", "dpo on a parent"])
def test_a_resumed_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, method: str, adapter: str
) -> None:
    import torch

    if (method, adapter) == ("dpo on a parent", "adalora"):
        pytest.skip("AdaLoRA adapters are not trained on")
    quick = {"dataset": "d", "min_steps": 12, "epochs": 1, "batch_size": 4, "save_every": 4, "adapter": adapter}
    watch = Watch(sample_every=3, prompts=([{"role": "user", "content": "Say 1."}],))

    def train(directory: Path, progress: LocalProgress, attempt: int = 1) -> dict[str, Any]:
        progress.watch = watch
        more: Any = {"attempt": attempt, "device": "cpu"}
        if method == "reward":
            settings = RewardSettings(**quick)
            return weights_of(train_reward(str(tiny_base), pairs, settings, directory, progress, **more).reward.model)
        parent = tmp_path / "parent" if method != "dpo" else None
        settings_of_dpo = DpoSettings(**quick)
        return weights_of(train_dpo(str(tiny_base), parent, pairs, settings_of_dpo, directory, progress, **more).model)

    if method == "dpo on a parent":
        start = DpoSettings(**{**quick, "min_steps": 2})
        first = train_dpo(str(tiny_base), None, pairs, start, tmp_path / "first", LocalProgress(), device="cpu")
        adapter_writer(first.model)(tmp_path / "parent")
    whole = train(tmp_path / "whole", LocalProgress())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Cut())
    torch.manual_seed(99)  # whatever the new process drew before must not matter
    resumed = train(tmp_path / "cut", LocalProgress(), attempt=2)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_training_that_diverges_stops_before_it_spoils_the_weights(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    original = torch.Tensor.backward

    settings = DpoSettings(dataset="d", min_steps=8, epochs=1, batch_size=4)
    progress = LocalProgress()

    def spoiling(tensor: Any, *rest: Any, **named: Any) -> None:
        original(tensor * (float("nan") if len({p.step for p in progress.points}) >= 3 else 1.0), *rest, **named)

    torch.Tensor.backward = spoiling  # type: ignore[method-assign]
    try:
        with pytest.raises(
            RunFailed, match=r"gradient at step 4 is not a number.*Lower learning_rate .*step 3, are in"
        ):
            train_dpo(str(tiny_base), None, pairs, settings, tmp_path / "run" / "trainer", progress, device="cpu")
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]
    kept = load_file(tmp_path / "run" / "last-good" / "adapter_model.safetensors")
    assert kept and all(torch.isfinite(weight).all() for weight in kept.values())
    assert any(weight.abs().max() > 0 for name, weight in kept.items() if "lora_B" in name)


@pytest.mark.slow
def test_replies_to_fixed_prompts_are_shown_as_they_change(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    prompts = ([{"role": "user", "content": "Say 1."}], [{"role": "user", "content": "Say 2."}])
    progress = LocalProgress(Watch(sample_every=2, prompts=prompts))
    settings = DpoSettings(dataset="d", min_steps=4, epochs=1, batch_size=4, learning_rate=3e-2, warmup=0.0)
    train_dpo(str(tiny_base), None, pairs, settings, tmp_path, progress, device="cpu")
    assert [step for step, _ in progress.looks] == [0, 2, 4]
    assert [prompt for prompt, _ in progress.looks[0][1]] == ["Say 1.", "Say 2."]
    assert progress.looks[0][1] != progress.looks[2][1]


@pytest.mark.slow
def test_looking_does_not_change_what_is_learnt(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    import torch

    settings = DpoSettings(dataset="d", min_steps=4, epochs=1, batch_size=4)
    seen = LocalProgress(Watch(sample_every=1, prompts=([{"role": "user", "content": "Say 1."}],)))
    looked = train_dpo(str(tiny_base), None, pairs, settings, tmp_path / "a", seen, device="cpu")
    blind = train_dpo(str(tiny_base), None, pairs, settings, tmp_path / "b", LocalProgress(), device="cpu")
    ours, theirs = weights_of(looked.model), weights_of(blind.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_dry_run_takes_two_steps_and_leaves_nothing(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    settings = DpoSettings(dataset="d", min_steps=50, batch_size=4, save_every=1, dry_run=True)
    with pytest.raises(DryRunDone) as done:
        train_dpo(str(tiny_base), None, pairs, settings, tmp_path, LocalProgress(Watch(dry_run=True)), device="cpu")
    assert done.value.figures["seconds_per_step"] > 0 and done.value.figures["peak_memory_mb"] > 100
    assert not list(tmp_path.glob("checkpoint-*"))


def test_curves_are_mirrored_to_tensorboard_and_outlive_the_run(make_context: Any, dataset: str) -> None:
    """Runs where TensorBoard is installed, which nothing here asks for."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quick = {"dataset": dataset, "min_steps": 4, "epochs": 1, "batch_size": 4, "report_to": "tensorboard"}
    for members in (1, 2):
        context = make_context("reward", quick | {"name": f"seen-{members}", "members": members})
        context.progress.watch = Watch(mirror=context.run_dir / "tensorboard")
        METHODS["reward"].run(context)
        places = [path.parent for path in context.run_dir.rglob("events.out.tfevents.*")]
        names = [str(place.relative_to(context.run_dir)) for place in places]
        assert sorted(names) == [["tensorboard"], ["tensorboard/1-of-2", "tensorboard/2-of-2"]][members - 1]
        for place in places:
            seen = EventAccumulator(str(place))
            seen.Reload()
            assert [point.step for point in seen.Scalars("train/loss")] == [1, 2, 3, 4]
        ours = [point.value for point in context.progress.points if point.name == "loss"]
        first = EventAccumulator(str(min(places)))
        first.Reload()
        assert [point.value for point in first.Scalars("train/loss")] == pytest.approx(ours)


def test_points_tell_the_pace_and_the_text_tells_what_is_left(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    progress = LocalProgress()
    settings = RewardSettings(dataset="d", min_steps=4, epochs=1, batch_size=4)
    train_reward(str(tiny_base), pairs, settings, tmp_path, progress, device="cpu")
    assert all(point.value > 0 for point in progress.points if point.name == "tokens_per_second")
    assert {"tokens_per_second", "learning_rate", "gradient_norm"} <= {point.name for point in progress.points}
    assert any("step 3 of 4" in text and "tokens/s" in text and "left" in text for _, text in progress.reports)
