"""Arguments of the trainers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.forward.precision import Precision
from training.models.loading import parameter_count
from training.models.memory_estimate import plan_batches
from training.reporting.trackers import PROJECT
from training.settings.train import TrainSettings
from training.trainer.saved_states import STATES_KEPT

DRY_STEPS = 2


def trainer_arguments(
    settings: TrainSettings, model: Any, tokens: Sequence[int], directory: Path, precision: Precision
) -> dict[str, Any]:
    """Keyword arguments for any TRL config: silent, local, and sized for the base model.

    ``tokens`` are those of each row, all sides of a pair or ranking together.
    """
    parameters = parameter_count(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    plan = plan_batches(model, settings, max(tokens))
    micro = plan.micro_batch
    steps = settings.steps_for(len(tokens), parameters)
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
        "bf16": precision == "bf16",
        "use_cpu": on_cpu,
        "gradient_checkpointing": plan.checkpointing,
        "dataloader_pin_memory": not on_cpu,
        "neftune_noise_alpha": settings.noise_for(parameters) or None,
        "max_length": None,
    }
