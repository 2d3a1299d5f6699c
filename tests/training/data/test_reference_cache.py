"""What the reference said is read again where nothing changed, and asked again where anything did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feedback.types import PreferencePair
from training.data import reference_cache
from training.data.reference_cache import load_sums, save_sums
from training.methods.dpo import train_dpo
from training.reporting.reporter import LocalProgress
from training.settings.dpo import DpoSettings

QUICK: dict[str, Any] = {
    "dataset": "d", "epochs": 1, "min_steps": 2, "batch_size": 4, "learning_rate": 5e-3, "embedding_noise": 0.0,
}  # fmt: skip
READ = "the reference was asked about these replies before; its answers are read"


def losses(
    base: Path,
    pairs: list[PreferencePair],
    directory: Path,
    cache: Path | None,
    parent: Path | None = None,
    **more: Any,
) -> tuple[list[float], bool, Any]:
    """The loss at each step, whether the reference's answers were read, and the model."""
    progress = LocalProgress()
    settings = DpoSettings(**QUICK | more)
    outcome = train_dpo(str(base), parent, pairs, settings, directory, progress, device="cpu", cache=cache)
    found = [point.value for point in progress.points if point.name == "loss"]
    return found, READ in progress.lines, outcome.model


def test_a_second_run_reads_what_the_first_was_told(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first, was_read, _ = losses(tiny_base, pairs, tmp_path / "1", cache)
    assert not was_read and len(list(cache.glob("*.json"))) == 1
    again, was_read, _ = losses(tiny_base, pairs, tmp_path / "2", cache, lora_rank=4, beta=0.1)
    assert was_read and again[0] == first[0]
    assert losses(tiny_base, pairs, tmp_path / "3", cache)[0] == first


def test_anything_else_is_asked_anew(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _, _, model = losses(tiny_base, pairs, tmp_path / "1", cache)
    model.save_pretrained(tmp_path / "parent")
    others: list[dict[str, Any]] = [
        {"pairs": pairs[:-1]},
        {"pairs": [pairs[0].model_copy(update={"chosen": "other"}), *pairs[1:]]},
        {"precision": "bf16"},
        {"length_weight": 0.5},
        {"parent": tmp_path / "parent"},
    ]
    for number, other in enumerate(others):
        given = {"pairs": pairs, **other}
        assert not losses(tiny_base, directory=tmp_path / f"other{number}", cache=cache, **given)[1], other
    assert len(list(cache.glob("*.json"))) == 1 + len(others)
    assert losses(tiny_base, pairs, tmp_path / "parents", cache, parent=tmp_path / "parent")[1]


def test_a_damaged_or_short_file_is_no_answer(tmp_path: Path) -> None:
    save_sums(tmp_path, "key", [[1.0, 2.0], [3.0, 4.0]])
    assert load_sums(tmp_path, "key", 2, 2) == [[1.0, 2.0], [3.0, 4.0]]
    assert load_sums(tmp_path, "key", 2, 3) is None and load_sums(tmp_path, "other", 2, 2) is None
    for damage in ("[[1.0, 2.0", "7", "[1, 2]", "null", "[]", "[[1.0, NaN], [1.0, 2.0]]"):
        (tmp_path / "key.json").write_text(damage)
        assert load_sums(tmp_path, "key", 2, 2) is None


def test_the_oldest_files_go_and_a_full_disk_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_cache, "KEPT", 2)
    for number in range(4):
        save_sums(tmp_path, f"k{number}", [[float(number)]])
        os.utime(tmp_path / f"k{number}.json", (number, number))
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["k2", "k3"]
    (tmp_path / "file").write_text("")
    save_sums(tmp_path / "file", "key", [[1.0]])  # not a directory: nothing is kept, nothing is raised
    assert load_sums(tmp_path / "file", "key", 1, 1) is None


def test_the_key_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = """
import torch
from peft import LoraConfig, get_peft_model
from tests.training.forward.models import tiny
from training.data.reference_cache import reference_key
model = get_peft_model(tiny(), LoraConfig(target_modules="all-linear"))
model.add_adapter("ref", LoraConfig(r=2, target_modules="all-linear"))
for name, parameter in model.named_parameters():
    if "lora" in name:
        torch.nn.init.constant_(parameter, 0.5)
model.base_model.model.register_buffer("single", torch.tensor(1.0))
print(reference_key(model, [{"ids": [1, 2]}], precision="fp32"))
"""
    keys = set()
    for seed in ("1", "2", "3"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        keys.add(done.stdout.strip())
    assert len(keys) == 1 and len(keys.pop()) == 64
