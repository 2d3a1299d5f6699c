"""One forward for every trainer: packed rows, a head at the replies, fused layers, the chosen precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from training.forward.lora import fused_lora
from training.forward.lower_layers import CACHE_SHARE, LowerLayers, decoder_layers, first_trained, freeze_below
from training.forward.norms import fused_norms
from training.forward.packing import PackedDecoder, asks_for_router, packed_rows
from training.forward.precision import Precision, bf16_weights, choose_precision, fp32_head
from training.forward.reply_head import reply_head
from training.reporting.reporter import Reporter
from training.settings.train import TrainSettings


@dataclass
class TrainerForward:
    """How a trainer's model computes while it trains. The log says once where a part cannot be used.

    ``scalar_head`` finds the head of a reward model, which computes in fp32 whatever the rest does.
    """

    precision: Precision
    reporter: Reporter
    scalar_head: Callable[[Any], Any] | None = None
    train_layers: str = "all"
    logged: bool = False
    _lower: LowerLayers | None = None  # kept from the reference pass for training

    @classmethod
    def for_run(
        cls,
        settings: TrainSettings,
        model: Any,
        reporter: Reporter,
        scalar_head: Callable[[Any], Any] | None = None,
    ) -> TrainerForward:
        """The forward that a run's settings ask for, its precision chosen and logged."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        precision, why = choose_precision(settings.precision, model.device.type, parameters)
        if model.device.type == "cpu" and why != precision:
            reporter.log(why)
        return cls(precision, reporter, scalar_head, settings.train_layers)

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """The model, under a PEFT adapter, computes this way for the time of the block, and is its old self after."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        with ExitStack() as stack:
            packed = stack.enter_context(packed_rows(base))
            first = self._freeze(base)
            stack.enter_context(fused_lora(model))
            stack.enter_context(fused_norms(base))
            if base.can_generate():
                stack.enter_context(reply_head(base))
            elif self.scalar_head is not None:
                stack.enter_context(fp32_head(self.scalar_head(base)))
            if self.precision == "bf16" and base.device.type == "cpu":
                stack.enter_context(bf16_weights(model))
            if first and packed is not None:
                self._cache_lower(base, packed, first)
            if not self.logged:
                self._log_fallbacks(base, packed is not None)
            self.logged = True
            yield

    def _freeze(self, base: Any) -> int:
        """Freeze the layers that are not trained; returns the index of the lowest that is."""
        layers = len(decoder_layers(base.base_model)) if self.train_layers != "all" else 0
        first = first_trained(self.train_layers, layers) if layers else 0
        if first and freeze_below(base.base_model, first):
            self.reporter.log(f"training layers {first + 1} to {layers} of {layers} (train_layers={self.train_layers})")
        return first

    def _cache_lower(self, base: Any, packed: PackedDecoder, first: int) -> None:
        if self._lower is None:
            limit = int(CACHE_SHARE * psutil.virtual_memory().available)
            if not packed.cache_below(base, first, limit):
                self.reporter.log("the hidden states below them cannot be cached and are computed each time")
            self._lower = packed.lower
        packed.lower = self._lower

    def _log_fallbacks(self, base: Any, packed: bool) -> None:
        kind = base.config.model_type
        if not packed:
            self.reporter.log(f"a {kind} model cannot read packed rows: its batches are computed with their padding")
        elif asks_for_router(base):
            self.reporter.log(f"the router of a {kind} model is trained too: batches are computed with their padding")
