"""Check a model: the one entry of this room. Examined as when it is added, then tried where it fits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from feedback.errors import InvalidInput
from training.checkpoints.base_check import Opened, open_examined
from training.conversion.own_template import template_name
from training.generation.sampling import end_tokens
from training.model_check.memory import TRAINED, Sketch, exchange_tokens, memory_by_method
from training.model_check.report import MethodOutlook, ModelReport
from training.model_check.trial import Trial, try_model
from training.models.base_files import base_directory, fetched_directory
from training.models.base_fit import refuse_without_scores
from training.models.chat import window_of
from training.models.chat_template import has_system_role
from training.models.loading import LoadedPolicy, parameter_count, pick_device
from training.models.memory_estimate import free_memory
from training.plain_templates import PLAIN_TEMPLATES
from training.settings.train import TrainSettings

METHODS = ("generate", "reward", "dpo", "kto", "sft", "ppo")
_TRIAL_COPIES = 2  # the base and the reward model on it, loaded beside each other
_PPO_PASSES = 2  # policy and value learn from each reply


def check_model(
    base: str, *, device: str | None = None, try_it: bool = True, say: Callable[[str], None] = lambda _: None
) -> ModelReport:
    """Everything that is known of a base before anything is started with it.

    ``base`` is what a policy stands on: a directory, a hub id (fetched where it is not at hand), starter or smollm2.
    Raises InvalidInput or NotFound with the reason for a model that cannot be used at all. Without ``try_it`` it is
    neither fetched nor loaded, and no time is measured. ``say`` receives a message for each step.
    """
    say("Reading its files, fetched first where they are not here" if try_it else "Reading its files")
    opened = open_examined(base, fetched_directory(base) if try_it else base_directory(base))
    sketch = _sketch(opened, pick_device(device))
    free = free_memory(sketch)
    fits = _TRIAL_COPIES * sketch.weight_bytes < free
    if try_it and fits:
        say("Trying what works with it, and how fast")
    trial = try_model(base, device) if try_it and fits else Trial(_known_reasons(opened, base))
    window = window_of(sketch)
    needed = memory_by_method(sketch, window)
    outlooks = tuple(_outlook(method, needed[method], free, trial, window) for method in METHODS)
    tokenizer = opened.tokenizer
    ends = end_tokens(LoadedPolicy(_with_generation_config(opened), tokenizer, base))
    return ModelReport(
        base=base,
        architecture=f"{(opened.config.architectures or ['?'])[0]} ({opened.config.model_type})",
        parameters=parameter_count(sketch),
        weights=_weights(opened),
        chat_template=_template(opened),
        system_role=has_system_role(tokenizer),
        end_tokens=tuple(map(str, tokenizer.convert_ids_to_tokens(ends))),
        pad_token=f"{tokenizer.pad_token} (the end token)" if tokenizer.pad_token_id in ends else tokenizer.pad_token,
        window=_window(opened),
        device=str(sketch.device),
        free_mb=free >> 20,
        timing=_timing(trial, window, tried=try_it, fits=fits),
        methods=outlooks,
        not_examined=opened.examination.not_examined,
    )


def _sketch(opened: Opened, device: str) -> Sketch:
    import torch

    if opened.model is None:
        raise InvalidInput(
            f"The weights of {opened.examination.base!r} cannot be examined: "
            f"{'; '.join(opened.examination.not_examined)}. `studio policies add` registers it all the same."
        )
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return Sketch(opened.config, torch.device(device), dtype, tuple(opened.model.parameters()))


def _known_reasons(opened: Opened, base: str) -> dict[str, str]:
    """What is known to fail of a model that is not loaded."""
    try:
        refuse_without_scores(opened.config, base)
    except InvalidInput as error:
        return {"reward": str(error)}
    return {}


def _outlook(method: str, needed: int, free: int, trial: Trial, window: int) -> MethodOutlook:
    reason = trial.reasons.get(method, "")
    if not reason and needed > free:
        reason = f"it needs about {needed >> 20:,} MB, and {free >> 20:,} MB are free"
    return MethodOutlook(method, not reason, reason, needed >> 20, _step_seconds(method, trial, window))


def _step_seconds(method: str, trial: Trial, window: int) -> float | None:
    """How long an optimizer step takes with the default settings; None of a method that has none."""
    if trial.seconds_per_token is None or method not in TRAINED or trial.reasons.get(method):
        return None
    settings, sequences = TRAINED[method]
    passes = _PPO_PASSES if method == "ppo" else 1
    return passes * _rows(settings) * sequences * exchange_tokens(window) * trial.seconds_per_token


def _rows(settings: TrainSettings) -> int:
    return settings.batch_size


def _timing(trial: Trial, window: int, *, tried: bool, fits: bool) -> str:
    if trial.seconds_per_token is not None:
        return (
            f"estimated for the default batch and {exchange_tokens(window)} tokens per sequence, from one training "
            f"pass over {trial.tokens} tokens that was timed here: {1000 * trial.seconds_per_token:.2f} ms per token"
        )
    if tried and not fits:
        return "not measured: the model does not fit the free memory twice, as the trial needs"
    return "not measured"


def _weights(opened: Opened) -> str:
    """The format of the weights that would be loaded: safetensors before .bin, as transformers reads them."""
    for pattern, name in (("*.safetensors", "safetensors"), ("*.bin", "torch .bin, tensors alone are read")):
        files = sorted(opened.directory.glob(pattern))
        if files:
            size = sum(path.stat().st_size for path in files) / 1e6
            return f"{name}, {len(files)} file{'s' if len(files) > 1 else ''}, {size:,.1f} MB"
    return "none"


def _template(opened: Opened) -> str:
    chosen = template_name(opened.directory)
    source = str(opened.tokenizer.chat_template)
    known = next((name for name, one in PLAIN_TEMPLATES.items() if one.source == source), None)
    if chosen is not None:
        return f"{chosen}, chosen when it was added"
    return known or f"the model's own ({len(source)} characters)"


def _window(opened: Opened) -> str:
    return next(
        (text.partition("(")[2].removesuffix(")") for text in opened.examination.examined if text.startswith("window")),
        "no limit is named",
    )


def _with_generation_config(opened: Opened) -> Any:
    """The empty model under the generation settings of its directory, which name further end tokens."""
    from transformers import GenerationConfig

    model: Any = opened.model
    with suppress(OSError):  # where none is there, those made from the configuration stand
        model.generation_config = GenerationConfig.from_pretrained(opened.directory, local_files_only=True)
    return model
