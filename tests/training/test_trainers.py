"""What the trainers share: the order of the pairs, and arguments that fit the size of the model."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from feedback.errors import CheckpointError
from feedback.types import PreferencePair
from training.config import DpoSettings
from training.methods.dpo import train_dpo
from training.models import load_base
from training.progress import LocalProgress
from training.trainers import LikeLengths, trainer_arguments


@pytest.mark.parametrize("count", [1, 5, 16, 64, 65, 200])
def test_an_epoch_holds_every_pair_once(count: int) -> None:
    rng = random.Random(1)
    order = LikeLengths([rng.randint(20, 120) for _ in range(count)], 16, seed=3)
    assert sorted(order) == list(range(count))
    assert len(order) == count


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
    arguments = trainer_arguments(DpoSettings(dataset="d", batch_size=6, micro_batch=2), model, 100, tmp_path)
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
