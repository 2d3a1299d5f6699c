"""What every TRL trainer here shares: arguments without reporters, points and cancels at each step, resume.

The trainers are given token ids made by ``training.chat``, so TRL never applies a template of its own.
Nothing is sent anywhere: no reporter, no hub, no telemetry.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from feedback.errors import NotEnoughData, RunFailed
from feedback.types import PreferencePair
from training.adapters import adalora_callback, adapter_writer
from training.chat import window_of
from training.checkpoints import disk_full, is_disk_full
from training.config import LARGE_MODEL, TrainSettings
from training.encoding import Encoder
from training.mirror import PROJECT, mirror_curves
from training.models import parameter_count
from training.preflight import tell_preflight
from training.progress import DryRunDone, Reporter
from training.ranks import leave_unless_leading
from training.shares import sharing
from training.steps import Diverged, sample_callback
from training.trainer_states import STATES_KEPT, newest_state, sealing_callback

MIN_PAIRS = 2
FEW_PAIRS = 50
DRY_STEPS = 2


class TokenPair(TypedDict):
    """A preference pair as token ids; ``length`` is that of the longer side. A reply has its end unless it was cut."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int


def require_pairs(pairs: Sequence[Any], noun: str, reporter: Reporter) -> None:
    """Refuse what nothing can be learnt from, and say so in the log where little can be."""
    if len(pairs) < MIN_PAIRS:
        raise NotEnoughData(
            f"{noun} has {len(pairs)} pair{'s' * (len(pairs) != 1)} to train on; at least {MIN_PAIRS} are needed "
            f"and {FEW_PAIRS} or more are advised. Judge more pairs and freeze a new dataset."
        )
    if len(pairs) < FEW_PAIRS:
        reporter.log(f"warning: only {len(pairs)} pairs; below about {FEW_PAIRS} a run mostly learns noise")


def encode_pairs(encoder: Encoder, pairs: Sequence[PreferencePair]) -> list[TokenPair]:
    """The pairs as token ids, those that can be trained on."""
    rows = []
    for pair in pairs:
        sides = encoder.encode(pair.messages, [(pair.chosen, pair.chosen_cut), (pair.rejected, pair.rejected_cut)])
        if sides is not None:
            chosen, rejected = sides
            length = len(chosen.prompt) + max(len(chosen.reply), len(rejected.reply))
            row = TokenPair(
                prompt_ids=chosen.prompt, chosen_ids=chosen.reply, rejected_ids=rejected.reply, length=length
            )
            rows.append(row)
    return rows


def usable_pairs(
    tokenizer: Any, model: Any, pairs: Sequence[PreferencePair], settings: TrainSettings, reporter: Reporter
) -> tuple[list[TokenPair], Encoder]:
    """The pairs that can be trained on, and the counts of the others; refused when fewer than two are left."""
    require_pairs(pairs, f"The dataset {settings.dataset!r}", reporter)
    encoder = Encoder(tokenizer, min(settings.max_length, window_of(model)))
    encoded = encode_pairs(encoder, pairs)
    encoder.report(reporter, "pairs", len(pairs))
    if len(encoded) < MIN_PAIRS:
        raise NotEnoughData(
            f"Of {len(pairs)} pairs {encoder.left_why}, which leaves {len(encoded)}; at least {MIN_PAIRS} are needed. "
            f"Raise max_length (now {settings.max_length}) or choose a model that reads more."
        )
    row = max(pair["length"] for pair in encoded)
    tell_preflight(model, settings, reporter, rows=len(encoded), left_out=encoder.left_out, longest=row)
    return encoded, encoder


def trainer_arguments(settings: TrainSettings, model: Any, pairs: int, directory: Path) -> dict[str, Any]:
    """Keyword arguments for any TRL config: silent, local, and sized for the base model."""
    parameters = parameter_count(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    micro = settings.micro_batch_for(parameters)
    steps = settings.steps_for(pairs, parameters)
    return {
        "output_dir": str(directory),
        "max_steps": min(DRY_STEPS, steps) if settings.dry_run else steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, settings.batch_size // (micro * settings.ranks)),
        "learning_rate": settings.rate_for(parameters),
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": round(steps * settings.warmup),
        "seed": settings.seed,
        "logging_steps": settings.log_every,
        "logging_first_step": True,
        # On, it would write the mean of earlier losses in the place of a loss that is not a number
        "logging_nan_inf_filter": False,
        "save_strategy": "no" if settings.dry_run else "steps",
        "save_steps": settings.save_every,
        "save_total_limit": STATES_KEPT,
        "report_to": [] if settings.report_to == "none" or settings.dry_run else [settings.report_to],
        "run_name": directory.parent.name,
        "project": PROJECT,
        "disable_tqdm": True,
        "push_to_hub": False,
        "bf16": not on_cpu,
        "use_cpu": on_cpu,
        # Recomputing activations saves memory that a small model does not need
        "gradient_checkpointing": parameters >= LARGE_MODEL,
        "dataloader_pin_memory": not on_cpu,
        "neftune_noise_alpha": settings.noise_for(parameters) or None,
        "max_length": None,
    }


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


class LikeLengths:
    """The order of an epoch: shuffled, then pairs of like length put into one batch, which saves a third of padding.

    Only four batches at a time are sorted and their order is shuffled again, so that chance still decides most. The
    order depends on the batch, the seed and the epoch alone: a resumed run meets the pairs it had not seen, and any
    number of processes or micro batches meet the same pairs in each step.
    """

    BATCHES = 4

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        span = self.BATCHES * self.batch_size
        for start in range(0, len(order), span):
            group = sorted(order[start : start + span], key=lambda i: self.lengths[i])
            batches = [group[i : i + self.batch_size] for i in range(0, len(group), self.batch_size)]
            last = [batches.pop()] if len(batches[-1]) < self.batch_size else []  # a short one must stay the last
            rng.shuffle(batches)
            for batch in batches + last:
                yield from batch


def quiet(trainer_class: type) -> type:
    """The trainer class without telemetry and model cards."""

    class Quiet(trainer_class):  # type: ignore[misc, valid-type]
        def _send_telemetry(self) -> None:
            """Nothing leaves this machine."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """The manifest is the card."""

    return Quiet


def silenced(trainer_class: type, encoded: Sequence[Any], seed: int) -> type:
    """The quiet trainer class without data preparation of its own; ``encoded`` rows have a ``length``."""

    class Silenced(sharing(quiet(trainer_class))):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # token ids already

        def _get_train_sampler(self, *_: Any) -> LikeLengths:
            together = self.args.per_device_train_batch_size * self.args.world_size
            step = together * self.args.gradient_accumulation_steps
            return LikeLengths([pair["length"] for pair in encoded], step, seed)

    return Silenced
