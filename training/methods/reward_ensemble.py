"""Train the members of a reward ensemble, each from a seed of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from training.checkpoints.atomic_directory import atomic_directory, sweep
from training.models.loading import LoadedReward, attach_adapter, load_scorer
from training.reporting.reporter import Relay, Reporter
from training.trainer.saved_states import seal, seal_fault

if TYPE_CHECKING:
    from training.models.reward_heads import Pooling
from training.models.ensemble import FINISHED, EnsembleModel, member_name

SEED_STEP = 1000


def train_members(
    base: str,
    members: int,
    train: Callable[[int, Path, Reporter], tuple[LoadedReward, dict[str, Any]]],
    directory: Path,
    reporter: Reporter,
    device: str | None = None,
    *,
    quantize: str = "none",
    pooling_for: Callable[[int], Pooling],
) -> tuple[LoadedReward, dict[str, Any]]:
    """Train the members one after the other and put them on one base; the figures are means over the members.

    ``train`` is given what to add to the seed, a directory for states to resume from and a reporter, and gives a
    reward model with its figures. A member that an earlier attempt finished is not trained again.
    """
    from training.models.classifiers import head_of
    from training.models.reward_heads import pooling_of

    found = []
    for number in range(1, members + 1):
        place = directory / f"{number}-of-{members}"
        saved = place / FINISHED
        if saved.is_dir() and (fault := _member_fault(saved)):
            reporter.log(f"warning: reward model {number} of {members} is trained again: {fault}")
            shutil.rmtree(saved)
        if not saved.is_dir():
            reporter.log(f"reward model {number} of {members}")
            reward, figures = train(SEED_STEP * (number - 1), place / "trainer", _Part(reporter, number, members))
            _keep(reward.model, figures, saved)
        found.append(json.loads((saved / "figures.json").read_text()))
    model, tokenizer = load_scorer(base, device, pooling=pooling_for, quantize=quantize)
    pooling = pooling_of(head_of(model))
    model = attach_adapter(model, directory / f"1-of-{members}" / FINISHED)
    for number in range(2, members + 1):
        path = directory / f"{number}-of-{members}" / FINISHED
        model.load_adapter(str(path), adapter_name=member_name(number), is_trainable=False)
    means = {name: fmean(figures[name] for figures in found) for name in found[0]}
    return LoadedReward(EnsembleModel(model.eval()), tokenizer, base, pooling), means


def _keep(model: Any, figures: dict[str, Any], saved: Path) -> None:
    """Save a finished member atomically."""
    sweep(saved.parent)  # what an attempt that was killed left half done
    with atomic_directory(saved) as partial:
        model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "figures.json").write_text(json.dumps(figures))
        seal(partial)


def _member_fault(saved: Path) -> str | None:
    """What is wrong with a member that an earlier attempt finished."""
    missing = [name for name in ("figures.json", "adapter_config.json") if not (saved / name).is_file()]
    return f"{missing[0]} is missing" if missing else seal_fault(saved)


class _Part(Relay):
    """Reports one member's training as its part of the whole; the members' curves follow one another."""

    def __init__(self, reporter: Reporter, number: int, members: int) -> None:
        super().__init__(reporter)
        self.number, self.members = number, members

    def report(self, fraction: float, text: str) -> None:
        done = (self.number - 1 + fraction) / self.members
        super().report(done, f"reward model {self.number} of {self.members}, {text}")

    def metrics(self, step: int, **values: float) -> None:
        prefix = f"member_{self.number}_" if self.number > 1 else ""
        super().metrics(step, **{f"{prefix}{name}": value for name, value in values.items()})
