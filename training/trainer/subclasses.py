"""TRL's trainers as this studio uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.data.pairs import LikeLengths, prompt_groups
from training.data.shares import sharing
from training.forward.trainer_forward import TrainerForward


def quiet(trainer_class: type) -> type:
    """The trainer class without telemetry and model cards."""

    class Quiet(trainer_class):  # type: ignore[misc, valid-type]
        def _send_telemetry(self) -> None:
            """Nothing leaves this machine."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """The manifest is the card."""

    return Quiet


def silenced(trainer_class: type, encoded: Sequence[Any], seed: int, forward: TrainerForward) -> type:
    """The quiet trainer class without data preparation of its own, whose model computes by ``forward`` while it trains.

    ``encoded`` rows have a ``length``; those of one ``group`` follow each other.
    """

    class Silenced(sharing(quiet(trainer_class))):  # type: ignore[misc]
        def train(self, *arguments: Any, **named: Any) -> Any:
            with forward.of(self.model):
                return super().train(*arguments, **named)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # token ids already

        def _get_train_sampler(self, *_: Any) -> LikeLengths:
            together = self.args.per_device_train_batch_size * self.args.world_size
            step = together * self.args.gradient_accumulation_steps
            return LikeLengths([row["length"] for row in encoded], step, seed, prompt_groups(encoded))

    return Silenced
