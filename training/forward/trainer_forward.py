"""One forward for every trainer: packed rows, a head at the replies, joined layers, the chosen precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from training.forward.lora import joined_lora
from training.forward.norms import joined_norms
from training.forward.packing import packed_rows
from training.forward.precision import Precision, bf16_weights, choose_precision
from training.forward.reply_head import reply_head
from training.reporting.reporter import Reporter
from training.settings.train import TrainSettings


@dataclass
class TrainerForward:
    """How a trainer's model computes while it trains; told once in the log where a part cannot be used."""

    precision: Precision
    reporter: Reporter
    told: bool = False

    @classmethod
    def for_run(cls, settings: TrainSettings, model: Any, reporter: Reporter) -> TrainerForward:
        """The forward that a run's settings ask for, its precision chosen and logged."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        precision, why = choose_precision(settings.precision, model.device.type, parameters)
        if model.device.type == "cpu" and why != precision:
            reporter.log(why)
        return cls(precision, reporter)

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """The model, under a PEFT adapter, computes this way for the time of the block, and is its old self after."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        with ExitStack() as stack:
            packed = stack.enter_context(packed_rows(base))
            stack.enter_context(joined_lora(model))
            stack.enter_context(joined_norms(base))
            if base.can_generate():
                stack.enter_context(reply_head(base))
            if self.precision == "bf16" and base.device.type == "cpu":
                stack.enter_context(bf16_weights(model))
            if packed is None and not self.told:
                kind = base.config.model_type
                self.reporter.log(
                    f"a {kind} model cannot read packed rows: its batches are computed with their padding"
                )
            self.told = True
            yield
