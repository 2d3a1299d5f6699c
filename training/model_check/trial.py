"""A model tried for a few seconds: whether adapters, heads and forwards fit it, and how long a token takes.

Nothing is kept. The model is loaded for this, and only where it fits the free memory.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from feedback.errors import StudioError
from training.adapters.build import adapter_config
from training.models.base_files import first_line, is_out_of_memory
from training.models.base_fit import refuse_without_scores
from training.models.loading import load_base, load_scorer
from training.ppo.backbone import Backbone
from training.ppo.backbone_adapters import PeftAdapters
from training.settings.dpo import DpoSettings

ROWS, TOKENS = 2, 64
_ADAPTED = ("dpo", "kto", "sft")


@dataclass
class Trial:
    """What a trial found: why methods do not work, by method, and seconds per token of a training pass."""

    reasons: dict[str, str] = field(default_factory=dict)
    seconds_per_token: float | None = None
    tokens: int = 0


def try_model(base: str, device: str | None = None) -> Trial:
    """Load a base and take one step of an adapter, of a reward head and of PPO's forward with it.

    Raises what ``load_base`` raises; whatever a method meets is in the reasons.
    """
    trial = Trial()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's calls to transformers: nobody here can heed them
        model, tokenizer = load_base(base, device)
        trial.reasons |= _reasons(("reward",), lambda: _score(base, model.config, device))
        trial.reasons |= _reasons(("ppo",), lambda: _check_backbone(base, model, tokenizer))
        trial.reasons |= _reasons(_ADAPTED, lambda: _time_steps(model, trial))
    return trial


def _reasons(methods: tuple[str, ...], attempt: Callable[[], None]) -> dict[str, str]:
    """Why these methods do not work, in words; nothing where they do. Errors of memory are no fault of the model."""
    try:
        attempt()
    except StudioError as error:
        return dict.fromkeys(methods, str(error))
    except Exception as error:  # a library's complaint about an architecture that it does not know
        if is_out_of_memory(error):
            return dict.fromkeys(methods, "memory ran out when it was tried")
        return dict.fromkeys(methods, f"{type(error).__name__}: {first_line(error)}")
    return {}


def _score(base: str, config: Any, device: str | None) -> None:
    from peft import get_peft_model

    refuse_without_scores(config, base)
    scorer, _ = load_scorer(base, device)
    get_peft_model(scorer, adapter_config(DpoSettings(dataset="any"), "SEQ_CLS", scorer))


def _check_backbone(base: str, model: Any, tokenizer: Any) -> None:
    backbone = Backbone(base, model, tokenizer, PeftAdapters(model))
    backbone.check_head()
    assert len(backbone.layers)


def _time_steps(model: Any, trial: Trial) -> None:
    """Two training passes of an adapter over a few tokens; the second is timed, the first warms up."""
    import torch
    from peft import get_peft_model

    under: Any = get_peft_model(model, adapter_config(DpoSettings(dataset="any"), "CAUSAL_LM", model))
    trained = [one for one in under.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9)
    rows = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(ROWS * TOKENS, device=model.device).view(ROWS, TOKENS) * 7919) % rows
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        under(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        took = time.perf_counter() - began
    trial.tokens, trial.seconds_per_token = ROWS * TOKENS, took / (ROWS * TOKENS)
