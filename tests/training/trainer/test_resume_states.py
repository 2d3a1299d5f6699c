"""States to resume from that a power cut left torn: the one before is taken, or the beginning, and the log says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import CheckpointError
from feedback.types import PreferencePair
from training.checkpoints.resume_state import read_state, write_state
from training.methods import METHODS
from training.methods.dpo import train_dpo
from training.methods.reward import train_ensemble
from training.models.ensemble import FINISHED
from training.reporting.reporter import LocalProgress
from training.runs.same_start import RECORD, check_same_start
from training.settings.dpo import DpoSettings
from training.trainer.running import resume_point
from training.trainer.saved_states import SEAL, fault_of, seal, seal_fault

SETTINGS = DpoSettings(dataset="d", min_steps=6, epochs=1, batch_size=4, save_every=2)


class Cut(LocalProgress):
    """Ends the process's work right after step 5, as a kill would."""

    def metrics(self, step: int, **values: float) -> None:
        super().metrics(step, **values)
        if step == 5:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def left(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed run of six steps left: the states of step 2 and step 4."""
    from tests.training.conftest import make_pair

    directory = tmp_path_factory.mktemp("left") / "trainer"
    pairs = [make_pair(i, "a" * (3 + i % 4), "z" * (3 + i % 3)) for i in range(8)]
    with pytest.raises(KeyboardInterrupt):
        train_dpo(str(tiny_base), None, pairs, SETTINGS, directory, Cut(), device="cpu")
    return directory


@pytest.fixture
def trainer(left: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left, tmp_path / "trainer"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    spoiled = bytearray(path.read_bytes())
    spoiled[len(spoiled) // 2] ^= 0x41
    path.write_bytes(spoiled)


FILES = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "adapter_model.safetensors"]


def test_the_two_newest_states_are_kept_and_sealed(left: Path) -> None:
    assert sorted(path.name for path in left.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    for state in left.glob("checkpoint-*"):
        told = json.loads((state / SEAL).read_text())
        assert set(FILES) <= set(told) and fault_of(state) is None
    assert resume_point(left, 2) == str(left / "checkpoint-4") and resume_point(left, 1) is None


@pytest.mark.parametrize("damage", [emptied, cut_short, Path.unlink, flipped])
@pytest.mark.parametrize("name", FILES)
def test_a_torn_state_is_passed_over(damage: Callable[[Path], Any], name: str, trainer: Path) -> None:
    damage(trainer / "checkpoint-4" / name)
    told: list[str] = []
    assert resume_point(trainer, 2, told.append) == str(trainer / "checkpoint-2")
    assert len(told) == 1 and told[0].startswith("warning: the state checkpoint-4 cannot be used: ")
    assert not (trainer / "checkpoint-4").exists(), "else the next one to go would be checkpoint-2"


@pytest.mark.parametrize("damage", [emptied, cut_short, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_torn_state_of_an_earlier_release_is_passed_over(
    damage: Callable[[Path], Any], name: str, trainer: Path
) -> None:
    for state in trainer.glob("checkpoint-*"):
        (state / SEAL).unlink()
    assert resume_point(trainer, 2) == str(trainer / "checkpoint-4")
    damage(trainer / "checkpoint-4" / name)
    assert resume_point(trainer, 2) == str(trainer / "checkpoint-2")


@pytest.mark.slow
@pytest.mark.parametrize("torn", [1, 2])
def test_a_run_with_torn_states_ends_as_if_it_was_never_cut(
    torn: int, tiny_base: Path, pairs: list[PreferencePair], trainer: Path, tmp_path: Path
) -> None:
    whole, resumed = LocalProgress(), LocalProgress()
    train_dpo(str(tiny_base), None, pairs, SETTINGS, tmp_path / "whole", whole, device="cpu")
    for step in (4, 2)[:torn]:
        emptied(trainer / f"checkpoint-{step}" / "optimizer.pt")
    train_dpo(str(tiny_base), None, pairs, SETTINGS, trainer, resumed, attempt=2, device="cpu")
    first = 3 if torn == 1 else 1
    losses = {point.step: point.value for point in resumed.points if point.name == "loss"}
    assert losses == {
        point.step: pytest.approx(point.value, abs=1e-6)
        for point in whole.points
        if point.name == "loss" and point.step >= first
    }
    said = "going on from checkpoint-2" if torn == 1 else "there is no state to go on from"
    assert any(said in line for line in resumed.lines) and any("optimizer.pt" in line for line in resumed.lines)


def test_a_seal_notices_every_change(tmp_path: Path) -> None:
    (tmp_path / "state" / "deep").mkdir(parents=True)
    (tmp_path / "state" / "deep" / "notes.txt").write_text("as it was")
    assert seal_fault(tmp_path / "state") is None
    seal(tmp_path / "state")
    assert seal_fault(tmp_path / "state") is None
    (tmp_path / "state" / "deep" / "notes.txt").write_text("as it is!")
    assert seal_fault(tmp_path / "state") == "deep/notes.txt is not what was written"
    emptied(tmp_path / "state" / SEAL)
    assert seal_fault(tmp_path / "state") is None, "a seal that was cut off says nothing"


@pytest.mark.parametrize("damage", [emptied, cut_short, flipped])
def test_a_torn_state_of_our_own_loop_gives_way_to_the_one_before(
    damage: Callable[[Path], Any], tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "state.pt"
    told: list[str] = []
    for number in (1, 2, 3):
        write_state(path, {"iteration": number, "weights": torch.full((4000,), float(number))})
    assert read_state(path, told.append)["iteration"] == 3 and told == []  # type: ignore[index]
    damage(path)
    assert read_state(path, told.append)["iteration"] == 2  # type: ignore[index]
    assert told[0].startswith("warning: the state state.pt cannot be used: it is ")
    damage(tmp_path / "state.previous.pt")
    assert read_state(path, told.append) is None and len(told) == 3
    path.unlink()
    write_state(tmp_path / "state.previous.pt", {"iteration": 5})
    assert read_state(path)["iteration"] == 5, "killed between two renames"  # type: ignore[index]


@pytest.mark.slow
def test_a_finished_member_that_was_torn_is_trained_again(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    from training.settings.reward import RewardSettings

    settings = RewardSettings(dataset="d", min_steps=2, epochs=1, batch_size=4, members=2)
    train_ensemble(str(tiny_base), pairs, settings, tmp_path, LocalProgress(), device="cpu")
    kept = (tmp_path / "2-of-2" / FINISHED / "adapter_model.safetensors").read_bytes()
    for number in (1, 2):
        shutil.rmtree(tmp_path / f"{number}-of-2" / "trainer")
    emptied(tmp_path / "1-of-2" / FINISHED / "adapter_model.safetensors")
    progress = LocalProgress()
    train_ensemble(str(tiny_base), pairs, settings, tmp_path, progress, attempt=2, device="cpu")
    assert any("reward model 1 of 2 is trained again: adapter_model.safetensors" in line for line in progress.lines)
    assert (tmp_path / "1-of-2" / FINISHED / "adapter_model.safetensors").stat().st_size
    assert (tmp_path / "2-of-2" / FINISHED / "adapter_model.safetensors").read_bytes() == kept


def test_a_base_that_changed_since_the_start_is_noticed(
    make_context: Any, dataset: str, tiny_base: Path, tmp_path: Path
) -> None:
    from feedback.store.models.policies import save_policy
    from feedback.types import Policy

    base = Path(shutil.copytree(tiny_base, tmp_path / "moving"))
    context = make_context("dpo", {"dataset": dataset, "parent": "moving"})
    save_policy(context.db, Policy(name="moving", base=str(base)))
    check_same_start(context)
    known = json.loads((context.run_dir / RECORD).read_text())
    check_same_start(context)
    flipped(base / "model.safetensors")
    (context.run_dir / "trainer" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"base model is not the one this run began with: hash .* Put the original"
    ):
        check_same_start(context)
    assert json.loads((context.run_dir / RECORD).read_text()) == known
    shutil.rmtree(context.run_dir / "trainer")
    check_same_start(context)  # nothing to go on from: it begins with what is there
    assert json.loads((context.run_dir / RECORD).read_text()) != known


def test_a_parents_adapter_that_changed_is_noticed(make_context: Any, dataset: str) -> None:
    quick = {"dataset": dataset, "min_steps": 2, "epochs": 1, "batch_size": 4}
    METHODS["dpo"].run(make_context("dpo", quick | {"name": "first"}))
    context = make_context("dpo", quick | {"parent": "first", "name": "second"})
    check_same_start(context)
    (context.run_dir / "trainer" / "checkpoint-2").mkdir(parents=True)
    check_same_start(context)
    flipped(context.home.checkpoints / "first" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="parent's adapter is not the one"):
        check_same_start(context)
