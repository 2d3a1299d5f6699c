"""The reference of the methods on TRL's trainers: the parent, adapter and all, never silently the bare base.

Where the parent has an adapter, TRL puts a frozen copy of it beside the one it trains and calls it ``ref``. Its own
copying passes over adapters of bare vectors (IA³), which would leave the bare base in the parent's place; here the copy
is made whole before it is first asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.adapters.build import TRL_REFERENCE, copy_adapter
from training.data.pairs import prompt_groups
from training.data.reference_cache import load_sums, reference_key, save_sums
from training.forward.trainer_forward import TrainerForward
from training.trainer.subclasses import silenced

REFERENCES = "references"  # the directory of the cache


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
    cache: Path | None = None,
) -> type:
    """The silenced trainer class that asks the reference once, before the first step, about every row.

    In batches of like length, longest first, without TRL's cache files and bars; the two sums of each row become
    ``columns`` of the dataset. ``encoded`` rows have a ``length``; those of one ``group`` are asked together.
    ``cache`` is where the sums are kept for later runs.
    """

    class ReferenceFirst(silenced(trainer_class, encoded, seed, forward)):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            complete_reference_copy(self.model)
            sums = None
            if cache is not None:
                inputs = {
                    "precision": forward.precision,
                    "columns": columns,
                    "ld_alpha": getattr(self, "ld_alpha", None),
                    "together": batch_size,
                }
                key = reference_key(self.model, encoded, **inputs)
                sums = load_sums(cache, key, len(columns), len(encoded))
            if sums is None:
                sums = self._ask_reference(batch_size)
                if cache is not None:
                    save_sums(cache, key, sums)
            else:
                forward.reporter.log("the reference was asked about these replies before; its answers are read")
            for column, own in zip(columns, sums, strict=True):
                dataset = dataset.add_column(column, own)
            return dataset

        def _ask_reference(self, batch_size: int) -> list[list[float]]:
            """The sums of every row, one list per column."""
            groups = sorted(prompt_groups(encoded), key=lambda group: -max(encoded[i]["length"] for i in group))
            order = [row for group in groups for row in group]
            sums = [[0.0] * len(encoded) for _ in columns]
            with forward.of(self.model):
                for start in range(0, len(order), batch_size):
                    forward.reporter.check()
                    forward.reporter.report(0.0, f"asking the reference: {start} of {len(order)} rows")
                    places = order[start : start + batch_size]
                    batch = self._prepare_inputs(self.data_collator([dict(encoded[i]) for i in places]))
                    for own, found in zip(sums, self.compute_ref_log_probs(self.model, batch), strict=True):
                        for place, value in zip(places, found.tolist(), strict=True):
                            own[place] = value
            return sums

    return ReferenceFirst
