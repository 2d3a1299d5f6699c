"""Before the first step: how many rows are left after truncation, how many steps they make, and whether it will fit.

The memory is an estimate of what training adds to the loaded base: gradients and two moments of the adapter, and the
activations of the longest rows of one micro-batch. On the starter it came within a fifth of what was measured
(``tests/benchmarks/README.md``); allocators and other families of models may make it a factor of two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from training.models.loading import parameter_count
from training.reporting.reporter import Reporter
from training.settings.train import TrainSettings

# What a trainer's libraries take beside tensors when they first work on a processor, as measured
LIBRARIES = 180 << 20


@dataclass(frozen=True)
class Preflight:
    """What is known before the first step; memory in megabytes."""

    rows: int
    left_out: int
    cut: int
    longest: int
    steps: int
    needed_mb: int
    free_mb: int

    def line(self, noun: str) -> str:
        """One line for the log."""
        lost = f"{self.left_out} left out for their length" if self.left_out else "none left out"
        cut = f", {self.cut} cut" if self.cut else ""
        return (
            f"{self.rows} {noun} ({lost}{cut}), the longest of {self.longest} tokens, make {self.steps} steps; "
            f"about {self.needed_mb} MB needed beside the base, {self.free_mb} MB free"
        )


def tell_preflight(
    model: Any,
    settings: TrainSettings,
    reporter: Reporter,
    *,
    rows: int,
    left_out: int,
    longest: int,
    cut: int = 0,
    noun: str = "pairs",
    sides: int = 2,
) -> Preflight:
    """Look, log what was seen, warn where memory will not do, and keep it for a dry run's result.

    ``longest`` is the longest row's tokens, ``sides`` how many sequences a row holds.
    """
    parameters = parameter_count(model)
    micro = settings.micro_batch_for(parameters)
    needed = memory_needed(model, settings, tokens=micro * sides * longest)
    free = free_memory(model)
    seen = Preflight(rows, left_out, cut, longest, settings.steps_for(rows, parameters), needed >> 20, free >> 20)
    reporter.log(seen.line(noun))
    if needed > free:
        reporter.log(f"warning: that may not fit; lower micro_batch (now {micro}) or max_length if it runs out")
    reporter.told.update(asdict(seen))
    return seen


def memory_needed(model: Any, settings: TrainSettings, *, tokens: int) -> int:
    """Bytes that training adds to the loaded model: adapter with optimizer, and activations of so many tokens."""
    config = model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    if settings.adapter == "bottleneck":
        adapter = 2 * layers * 2 * hidden * max(1, hidden // settings.reduction)
    else:
        adapter = layers * settings.lora_rank * (8 * hidden + 3 * (hidden + inner))
    width = max(2, model.dtype.itemsize)
    # Per token and layer: inputs of the norms, of attention and of both halves of the MLP, kept for the way back,
    # and what the adapter adds to each projection's output.
    added = 4 * hidden if settings.adapter == "bottleneck" else 5 * hidden + 2 * inner
    layer = (10 * hidden + 4 * inner + added) * width
    kept = layers * layer
    if getattr(model, "is_gradient_checkpointing", False):
        kept = layers * hidden * width + layer
    scores = 0 if getattr(model, "num_labels", 2) == 1 else 2 * config.vocab_size * 4
    return int(adapter * 16 + tokens * (kept + scores)) + (LIBRARIES if model.device.type == "cpu" else 0)


def free_memory(model: Any) -> int:
    """Bytes free where the model is: on its GPU, or on this machine."""
    if model.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(model.device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
