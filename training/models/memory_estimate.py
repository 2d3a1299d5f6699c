"""Before the first step: how many rows are left after truncation, how many steps they make, and whether it will fit.

The memory is an estimate of what training adds to the loaded base: gradients and two moments of the adapter, and the
activations of the longest rows of one micro-batch. On the starter it came within a fifth of what was measured
(``tests/benchmarks/README.md``); allocators and other families of models may make it a factor of two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from training.forward.head import LOGITS_AT_ONCE
from training.forward.packing import asks_for_router
from training.forward.precision import choose_precision
from training.models.loading import parameter_count
from training.reporting.reporter import Reporter
from training.settings.train import TrainSettings

# What a trainer's libraries take beside tensors when they first work on a processor, as measured
LIBRARIES = 180 << 20
# What the activations of one micro-batch may take: on a CPU, where more is not faster, and of a GPU's memory
ACTIVATIONS = 3 << 29
ACTIVATIONS_SHARE = 0.25
MIXED_BYTES = 2.7  # of a number that is kept, some of them in bf16 and some in fp32
USABLE = 0.8  # of the free memory: beyond it, activations are computed again in the backward pass


@dataclass(frozen=True)
class BatchPlan:
    """How many rows are in memory at once, and whether their activations are computed again in the backward pass."""

    micro_batch: int
    checkpointing: bool


def plan_batches(model: Any, settings: TrainSettings, tokens: int) -> BatchPlan:
    """The plan for rows of at most so many ``tokens``: all sequences of a pair or ranking together.

    The number of rows depends on the model, the settings and the kind of machine alone, so that a resumed run adds up
    the same parts; what is free decides on checkpointing, which changes no result.
    """
    budget = ACTIVATIONS
    if model.device.type == "cuda":
        import torch

        budget = int(torch.cuda.get_device_properties(model.device).total_memory * ACTIVATIONS_SHARE)
    micro = settings.micro_batch_for(budget // max(1, tokens * activations_per_token(model, settings)))
    needed = memory_needed(model, settings, tokens=micro * tokens)
    return BatchPlan(micro, checkpointing=needed > USABLE * free_memory(model))


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
    tokens: int,
    cut: int = 0,
    noun: str = "pairs",
) -> Preflight:
    """Look, log what was seen, warn where memory will not do, and keep it for a dry run's result.

    ``longest`` is the tokens of the longest sequence, ``tokens`` those of the largest row with all its sequences.
    """
    parameters = parameter_count(model)
    plan = plan_batches(model, settings, tokens)
    needed = memory_needed(model, settings, tokens=plan.micro_batch * tokens, checkpointing=plan.checkpointing)
    free = free_memory(model)
    seen = Preflight(rows, left_out, cut, longest, settings.steps_for(rows, parameters), needed >> 20, free >> 20)
    reporter.log(seen.line(noun))
    if plan.checkpointing:
        reporter.log("activations are computed again in the backward pass: keeping them would take more than is free")
    if needed > free:
        reporter.log(
            f"warning: that may not fit; lower micro_batch (now {plan.micro_batch}) or max_length if it runs out"
        )
    reporter.told.update(asdict(seen))
    return seen


def memory_needed(model: Any, settings: TrainSettings, *, tokens: int, checkpointing: bool = False) -> int:
    """Bytes that training adds to the loaded model: adapter with optimizer, and activations of so many tokens."""
    config = model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    if settings.adapter == "bottleneck":
        adapter = 2 * layers * 2 * hidden * max(1, hidden // settings.reduction)
    else:
        adapter = layers * settings.lora_rank * (8 * hidden + 3 * (hidden + inner))
    kept = activations_per_token(model, settings)
    if checkpointing:
        kept = kept // layers + layers * hidden * max(2, model.dtype.itemsize)
    libraries = LIBRARIES if model.device.type == "cpu" else 0
    return adapter * 16 + tokens * kept + _head_memory(model) + libraries


def shares_prompts(model: Any, settings: TrainSettings) -> bool:
    """Whether replies to one prompt compute it once: not under noise, nor where experts are asked for their router."""
    return not settings.noise_for(parameter_count(model)) and not asks_for_router(model)


def activations_per_token(model: Any, settings: TrainSettings) -> int:
    """Bytes that the layers keep of one token for the backward pass.

    Per layer: inputs of the norms, of attention and of both halves of the MLP, and what other adapters than LoRA add.
    Measured on SmolLM2-135M, KB for a token and layer: 47.1 in fp32 and 31.3 in bf16; this gives 47.6 and 32.1.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    added = 0 if settings.adapter in ("lora", "rslora") else 5 * hidden + 2 * inner
    precision, _why = choose_precision(settings.precision, model.device.type, parameter_count(model))
    mixed = precision == "bf16" and model.dtype.itemsize == 4
    width = MIXED_BYTES if mixed else max(2, model.dtype.itemsize)
    return int(config.num_hidden_layers * (10 * hidden + 4 * inner + added) * width)


def _head_memory(model: Any) -> int:
    """Bytes of the logits of one chunk of tokens, and of the weight in the precision of the product; none of a scalar
    head.
    """
    if getattr(model, "num_labels", 2) == 1:
        return 0
    config = model.config.get_text_config()
    return 2 * 4 * max(LOGITS_AT_ONCE, config.vocab_size) + 2 * config.vocab_size * config.hidden_size


def free_memory(model: Any) -> int:
    """Bytes free where the model is: on its GPU, or on this machine."""
    if model.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(model.device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
