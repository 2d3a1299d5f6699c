"""What every TRL trainer here shares: arguments without reporters, points and cancels at each step, resume.

The trainers are given token ids made by ``training.models.chat``, so TRL never applies a template of its own.
Nothing is sent anywhere: no reporter, no hub, no telemetry.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedback.errors import RunFailed
from training.adapters.build import adalora_callback, adapter_writer
from training.checkpoints.saving import disk_full, is_disk_full
from training.reporting.reporter import DryRunDone, Reporter
from training.reporting.trackers import mirror_curves
from training.trainer.callbacks import Diverged, sample_callback
from training.trainer.distributed import leave_unless_leading
from training.trainer.saved_states import newest_state, sealing_callback


def resume_point(directory: Path, attempt: int, log: Callable[[str], None] = lambda line: None) -> str | None:
    """The trainer's newest readable state to go on from, for a second attempt; None to start afresh.

    ``log`` is told which states cannot be used, and why.
    """
    if attempt <= 1 or not directory.is_dir():
        return None
    found = newest_state(directory, log)
    return str(found) if found is not None else None


def run_trainer(trainer: Any, directory: Path, attempt: int, reporter: Reporter) -> None:
    """Train to the end, going on from an earlier attempt's state where there is one.

    A training that diverges leaves its last good weights as an adapter in ``last-good`` beside ``directory``. A dry
    run ends here, with ``DryRunDone``.
    """
    from transformers import ProgressCallback
    from transformers.trainer_callback import PrinterCallback
    from transformers.trainer_utils import SaveStrategy

    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    allocation = adalora_callback(trainer.model)
    if allocation is not None:  # its ranks shrink as it goes, and PEFT cannot put such a state back
        trainer.args.save_strategy = SaveStrategy.NO
        reporter.log("AdaLoRA keeps no states to resume from: resumed, this run begins again")
    for callback in (allocation, _sampler(trainer, reporter)):
        if callback is not None:
            trainer.add_callback(callback)
    trainer.add_callback(sealing_callback())
    point = resume_point(directory, attempt, reporter.log)
    if point is not None:
        reporter.log(f"going on from {Path(point).name}")
    elif attempt > 1:
        reporter.log("there is no state to go on from: the training begins at its first step")
    mirror_curves(trainer, directory, int(Path(point).name.rpartition("-")[2]) if point else 0, reporter)
    before = _trainable_sums(trainer.model)
    began = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=point)
        _leave_autocast(trainer.model)
    except Diverged as error:
        leave_unless_leading()
        raise Diverged(f"{error}{_keep_last_good(trainer, directory)}") from None
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(directory, "The state to resume from") from error
        raise
    leave_unless_leading()
    if reporter.watch.dry_run:
        raise DryRunDone(reporter.told | _dry_figures(trainer, time.monotonic() - began, reporter.told.get("steps")))
    after = _trainable_sums(trainer.model)
    if all(after[name] == sums for name, sums in before.items() if name in after):
        raise RunFailed(
            "Nothing was learnt: after the last step every trainable weight is what it was before the first, so "
            "nothing is saved. Raise learning_rate; where replies are scored, use a reward that tells them apart."
        )


def _leave_autocast(model: Any) -> None:
    """Take off what accelerate wrapped around the model's forward for mixed precision.

    It stays there after training. The probe, measured through it, would be bf16's, and the checkpoint refused when it
    is loaded in fp32.
    """
    original = vars(model).pop("_original_forward", None)
    if original is None:
        return
    vars(model).pop("forward", None)
    if model.forward != original:
        model.forward = original


def _trainable_sums(model: Any) -> dict[str, tuple[float, float]]:
    """What the weights that training may change add up to; equal before and after means that none of them moved."""
    return {
        name: (weight.detach().double().sum().item(), weight.detach().double().abs().sum().item())
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def _sampler(trainer: Any, reporter: Reporter) -> Any | None:
    return sample_callback(reporter, trainer.processing_class) if trainer.model.can_generate() else None


def _keep_last_good(trainer: Any, directory: Path) -> str:
    """Save the weights in memory, which the optimizer did not touch any more; says in words where they are."""
    step = trainer.state.global_step
    if step == 0:
        return ""
    good = directory.parent / "last-good"
    shutil.rmtree(good, ignore_errors=True)
    adapter_writer(trainer.model)(good)
    return f" The last good weights, of step {step}, are in {good.parent.name}/{good.name}."


def _dry_figures(trainer: Any, seconds: float, steps: int | None) -> dict[str, Any]:
    """What two steps tell of a whole run: its length in seconds, and the memory the process has needed so far."""
    taken = max(1, trainer.state.global_step)
    return {
        "dry_run": True,
        "seconds_per_step": round(seconds / taken, 3),
        "seconds_in_all": round(seconds / taken * steps) if steps else None,
        "peak_memory_mb": peak_memory_mb(trainer.model.device.type),
        "last_loss": next((log["loss"] for log in reversed(trainer.state.log_history) if "loss" in log), None),
    }


def peak_memory_mb(device: str) -> int:
    """The most memory needed so far: of the GPU where one is at work, else of the process."""
    import torch

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if device == "cuda":
        used = torch.cuda.max_memory_allocated()
    return round(used / 2**20)


@contextmanager
def trainer_scope() -> Iterator[None]:
    """For building and running a trainer: it seeds every global generator, which is undone at the end.

    Deprecations inside the libraries are not the user's to mend, and stay out of the run's log.
    """
    import numpy
    import torch

    state, numbers = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        random.setstate(state)
        numpy.random.set_state(numbers)
