"""The curves in a tracker as well: TensorBoard, trackio or Weights & Biases, by the trainer's own reporters.

TensorBoard's files would lie among the states to resume from, which are removed when a run ends; here they lie in
``tensorboard`` beside the run's log, and a run that is resumed goes on in the same place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.reporting.reporter import Reporter

TENSORBOARD = "tensorboard"
PROJECT = "rlhf-studio"  # of trackio; Weights & Biases reads WANDB_PROJECT


def mirror_curves(trainer: Any, directory: Path, step: int, reporter: Reporter) -> None:
    """Say where the curves of ``trainer`` are mirrored to, if anywhere, and keep TensorBoard's beside the log.

    ``directory`` is the trainer's own; ``step`` is the last one an earlier attempt kept.
    """
    for name in trainer.args.report_to:
        if name != TENSORBOARD:
            reporter.log(f"the curves are mirrored to {name}, as the run {trainer.args.run_name}")
            continue
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        place = reporter.watch.mirror or directory.parent / TENSORBOARD
        if directory.parent != place.parent:  # one of several members of an ensemble
            place /= directory.parent.name
        trainer.remove_callback(TensorBoardCallback)
        writer: Any = SummaryWriter(str(place), purge_step=step + 1 if step else None)  # type: ignore[no-untyped-call]
        trainer.add_callback(TensorBoardCallback(writer))
        reporter.log(f"the curves are mirrored to TensorBoard: tensorboard --logdir {place}")
