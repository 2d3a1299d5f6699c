"""Several reward models as adapters on one frozen base: where they disagree, a score is doubtful.

The members learn from the same judgments, each from a start and in an order of its own. A checkpoint of K members is
one directory: the first member is an ordinary PEFT adapter, the others lie in ``member-2`` … ``member-K`` beside it.
As a model an ensemble gives the mean of its members; ``training.rewards`` combines their opinions in other ways.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from training.models import LoadedReward, attach_adapter, load_scorer
from training.placement import sync
from training.progress import Relay, Reporter
from training.trainer_states import seal, seal_fault

if TYPE_CHECKING:
    from training.heads import Pooling

FIRST = "default"  # PEFT's name for the adapter in a checkpoint's own directory
SEED_STEP = 1000
FINISHED = "member"  # where a finished member waits for the others; earlier versions, whose heads differ, said adapter


class Member:
    """One member as a model of its own: calling it switches the shared base to its adapter first."""

    def __init__(self, model: Any, adapter: str, lock: Any) -> None:
        self._model, self._adapter, self._lock = model, adapter, lock

    def __call__(self, **inputs: Any) -> Any:
        """The member's output."""
        with self._lock:
            self._model.set_adapter(self._adapter, inference_mode=True)
            return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class EnsembleModel:
    """A PEFT model with several adapters that answers with the mean of their scores."""

    def __init__(self, model: Any) -> None:
        self._model = model
        lock = threading.RLock()
        self.members = [Member(model, adapter, lock) for adapter in model.peft_config]

    def __call__(self, **inputs: Any) -> Any:
        """An output whose ``logits`` (row, 1) are the mean of the members'."""
        import torch

        return SimpleNamespace(logits=torch.stack([member(**inputs).logits for member in self.members]).mean(0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def member_name(number: int) -> str:
    """The adapter's name of the number-th member, from 1."""
    return FIRST if number == 1 else f"member-{number}"


def members_of(reward: LoadedReward) -> list[LoadedReward]:
    """The members of an ensemble as reward models of their own; a single model is its only member."""
    if not isinstance(reward.model, EnsembleModel):
        return [reward]
    return [LoadedReward(member, reward.tokenizer, reward.base, reward.pooling) for member in reward.model.members]


def attach_members(model: Any, directory: Path, members: int) -> Any:
    """The model under its first adapter with the others of a checkpoint added, as one ensemble."""
    for number in range(2, members + 1):
        name = member_name(number)
        model.load_adapter(str(directory / name), adapter_name=name, is_trainable=False)
    return EnsembleModel(model.eval())


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
    from training.classifiers import head_of
    from training.heads import pooling_of

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
    """Put a finished member on disk, whole or not at all."""
    partial = saved.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), save_embedding_layers=False)
    (partial / "figures.json").write_text(json.dumps(figures))
    seal(partial)
    partial.rename(saved)
    sync(saved.parent)


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
