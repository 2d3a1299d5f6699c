"""The reference of the methods on TRL's trainers: the parent, adapter and all, never silently the bare base.

Where the parent has an adapter, TRL puts a frozen copy of it beside the one it trains and calls it ``ref``. Its own
copying passes over adapters of bare vectors (IA³), which would leave the bare base in the parent's place; here the copy
is made whole before it is first asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.adapters.build import TRL_REFERENCE, copy_adapter
from training.forward.trainer_forward import TrainerForward
from training.trainer.subclasses import silenced


def complete_reference_copy(model: Any) -> None:
    """Make TRL's frozen copy of the parent, where there is one, the parent exactly."""
    if TRL_REFERENCE in model.peft_config:
        copy_adapter(model, "default", TRL_REFERENCE)


def drop_reference_copy(model: Any) -> None:
    """Remove the frozen copy of the parent; left in, it would be saved with the policy."""
    if TRL_REFERENCE in model.peft_config:
        model.delete_adapter(TRL_REFERENCE)
    model.set_adapter("default")


def reference_first(
    trainer_class: type,
    encoded: Sequence[Any],
    seed: int,
    columns: tuple[str, str],
    forward: TrainerForward,
) -> type:
    """The silenced trainer class that asks the reference once, before the first step, about every row.

    In batches of like length, longest first, without TRL's cache files and bars; the two sums of each row become
    ``columns`` of the dataset. ``encoded`` rows have a ``length``.
    """

    class ReferenceFirst(silenced(trainer_class, encoded, seed, forward)):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            complete_reference_copy(self.model)
            order = sorted(range(len(encoded)), key=lambda i: -encoded[i]["length"])
            sums = tuple([0.0] * len(encoded) for _ in columns)
            with forward.of(self.model):
                for start in range(0, len(order), batch_size):
                    forward.reporter.check()
                    places = order[start : start + batch_size]
                    batch = self._prepare_inputs(self.data_collator([dict(encoded[i]) for i in places]))
                    for own, found in zip(sums, self.compute_ref_log_probs(self.model, batch), strict=True):
                        for place, value in zip(places, found.tolist(), strict=True):
                            own[place] = value
            for column, own in zip(columns, sums, strict=True):
                dataset = dataset.add_column(column, own)
            return dataset

    return ReferenceFirst
