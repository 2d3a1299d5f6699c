"""Several reward models as adapters on one frozen base: where they disagree, a score is doubtful.

The members learn from the same judgments, each from a start and in an order of its own. A checkpoint of K members is
one directory: the first member is an ordinary PEFT adapter, the others lie in ``member-2`` … ``member-K`` beside it. As
a model an ensemble gives the mean of its members; ``training.rewards.scorers`` combines their opinions in other ways.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training.models.loading import LoadedReward

FIRST = "default"  # PEFT's name for the adapter in a checkpoint's own directory
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
