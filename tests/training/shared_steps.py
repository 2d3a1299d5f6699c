"""Trains each method for a few steps in one of several processes; the leader writes the curves as JSON.

python -m tests.training.shared_steps BASE DIRECTORY ROWS MICRO_BATCH, in the environment of a rank.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.datasets.examples import LabelledReply
from feedback.types import Message
from tests.training.conftest import make_pair
from training.methods.dpo import train_dpo
from training.methods.kto import train_kto
from training.methods.reward import train_reward
from training.methods.sft import train_sft
from training.reporting.reporter import LocalProgress
from training.settings.dpo import DpoSettings
from training.settings.kto import KtoSettings
from training.settings.reward import RewardSettings
from training.settings.sft import SftSettings
from training.trainer import distributed

BATCH, STEPS = 12, 6
CURVES = {"loss", "gradient_norm", "accuracy", "margin", "chosen_log_prob_change", "kl", "token_accuracy"}


@dataclass
class Imitation:
    """An exchange to imitate."""

    messages: tuple[Message, ...]
    reply: str
    cut: bool = False


def pairs(rows: int) -> list[Any]:
    """Pairs of many lengths."""
    return [make_pair(i, "a" * (2 + 5 * i % 23), "z" * (1 + 7 * i % 19)) for i in range(rows)]


def curves(base: str, directory: Path, rows: int, micro: int | None, processes: int = 1) -> dict[str, Any]:
    """What each method's curves are: by method and curve, one value per step."""
    made = pairs(rows)
    shared: dict[str, Any] = {
        "dataset": "d",
        "epochs": 1,
        "min_steps": STEPS,
        "batch_size": BATCH,
        "micro_batch": micro,
        "processes": processes,
        "embedding_noise": 0.0,
        "log_every": 1,
        "learning_rate": 5e-3,
        "warmup": 0.0,
    }
    labelled = [
        LabelledReply(
            prompt_id=pair.prompt_id,
            messages=pair.messages,
            reply=pair.chosen if i % 3 else pair.rejected,
            good=bool(i % 3),
        )
        for i, pair in enumerate(made)
    ]
    imitated = [Imitation(pair.messages, pair.chosen) for pair in made]
    begin: dict[str, Callable[[Path, LocalProgress], Any]] = {
        "dpo": lambda at, told: train_dpo(base, None, made, DpoSettings(**shared), at, told, device="cpu"),
        "simpo": lambda at, told: train_dpo(
            base, None, made, DpoSettings(**shared, loss="simpo"), at, told, device="cpu"
        ),
        "reward": lambda at, told: train_reward(base, made, RewardSettings(**shared), at, told, device="cpu"),
        "ranking": lambda at, told: train_reward(
            base, made, RewardSettings(**shared, margin=0.1), at, told, device="cpu"
        ),
        "sft": lambda at, told: train_sft(base, None, imitated, SftSettings(**shared), at, told, device="cpu"),
        "packed": lambda at, told: train_sft(
            base, None, imitated, SftSettings(**shared, packing=True, max_length=64), at, told, device="cpu"
        ),
        "kto": lambda at, told: train_kto(base, None, labelled, KtoSettings(**shared), at, told, device="cpu"),
    }
    found: dict[str, Any] = {}
    for name, train in begin.items():
        told = LocalProgress()
        try:
            train(directory / name, told)
        except distributed.Followed:
            continue
        found[name] = {curve: [p.value for p in told.points if p.name == curve] for curve in sorted(CURVES)}
    return found


if __name__ == "__main__":
    base, directory, rows, micro = sys.argv[1:]
    distributed.join(distributed.meeting_place())
    found = curves(base, Path(directory), int(rows), int(micro) or None, int(os.environ["WORLD_SIZE"]))
    if distributed.rank() == 0:
        (Path(directory) / "curves.json").write_text(json.dumps(found))
