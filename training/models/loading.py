"""One frozen base, adapters on top; the reference is the same model with its adapters off.

A base is a directory or a Hugging Face id. What is on disk is used before any network is tried.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import InvalidInput
from training.models.base_files import at_hand_first, local_directory
from training.models.base_fit import (
    embedding_rows,
    fit_configuration,
    fit_tokenizer,
    refuse_other_kind,
    refuse_two_way,
    refuse_unfit_weights,
    refuse_without_scores,
)
from training.models.chat_template import fix_template_date

if TYPE_CHECKING:
    import torch

    from training.models.reward_heads import Pooling

HEAD = "score"  # where a sequence classifier keeps its head
HEAD_FILE = "head.safetensors"  # of a role beside a policy, in the directory that has the role's name
PROBE_WIDTH = 12


@dataclass
class LoadedPolicy:
    """A model that can reply. ``model`` is the bare base, or the base under a PEFT adapter.

    ``folds`` is off for a model in training: folding there and back would round the frozen base. ``half`` says that
    replies are drawn by matrix products in bf16 (``training.speedups.half_linears``); all else stays in fp32.
    """

    model: Any
    tokenizer: Any
    base: str
    folds: bool = True
    half: bool = False
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def has_adapter(self) -> bool:
        """Whether anything was trained on top of the base."""
        return hasattr(self.model, "peft_config")

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The model with its adapters off, for the time of the block."""
        if not self.has_adapter:
            yield self.model
            return
        with self._lock, self.model.disable_adapter():
            yield self.model

    @contextmanager
    def for_sampling(self) -> Iterator[Any]:
        """The model for the time of the block, for one thread, with its adapter folded into the base weights.

        Folding saves two small products in every layer at every token. In 16 bits it would round, and a bottleneck
        is not linear, so there the adapter stays beside the base.
        """
        from training.adapters.build import can_fold

        with self._lock:
            if not self.folds or not self.has_adapter or not can_fold(self.model):
                yield self.model
                return
            self.model.merge_adapter()
            try:
                yield self.model
            finally:
                self.model.unmerge_adapter()


@dataclass
class LoadedReward:
    """A model with a scalar head; higher scores are better replies."""

    model: Any
    tokenizer: Any
    base: str
    pooling: Pooling = "last"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


def pick_device(device: str | None = None) -> str:
    """The device asked for, else the GPU when there is one; on CPU all cores are put to work."""
    import torch

    own = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"  # one of several processes
    chosen = device or (own if torch.cuda.is_available() else "cpu")
    if chosen == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    return chosen


def load_base(
    base: str, device: str | None = None, quantize: str = "none", *, precision: str | None = None
) -> tuple[Any, Any]:
    """The frozen causal model and its tokenizer: bf16 on a GPU, fp32 on CPU; ``quantize`` is none, 8bit or 4bit.

    ``precision`` fp32 holds the weights in fp32 on a GPU too.
    """
    from transformers import AutoModelForCausalLM

    return _load(base, device, AutoModelForCausalLM, precision, **_quantised(quantize))


def load_scorer(
    base: str,
    device: str | None = None,
    pooling: Pooling | Callable[[int], Pooling] = "last",
    quantize: str = "none",
    *,
    own_name: bool | None = None,
    reads_end: bool = True,
    precision: str | None = None,
) -> tuple[Any, Any]:
    """The base with an untrained scalar head, and its tokenizer: what a reward model starts from.

    ``pooling`` may depend on the number of parameters. ``own_name`` says whether the head lies where plain PEFT does
    not look for it; left out, it does where plain transformers would read it in another way. ``reads_end`` is off for
    reward models of earlier versions; see ``training.models.classifiers``.
    """
    from transformers import AutoModelForSequenceClassification

    from training.models.classifiers import needs_own_name, place_head, read_by_mask

    model, tokenizer = _load(
        base, device, AutoModelForSequenceClassification, precision, num_labels=1, **_quantised(quantize)
    )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    read_by_mask(model, base, reads_end=reads_end)
    wanted = pooling if isinstance(pooling, str) else pooling(parameter_count(model))
    own = needs_own_name(wanted, tokenizer) if own_name is None else own_name
    place_head(model, wanted, own_name=own)
    return model, tokenizer


def attach_adapter(model: Any, directory: Path, *, trainable: bool = False, name: str = "default") -> Any:
    """The model under the adapter saved in a directory, of whatever kind; see ``training.adapters``."""
    from training.adapters import build

    return build.attach_adapter(model, directory, trainable=trainable, name=name)


def parameter_count(model: Any) -> int:
    """How many parameters the model has, adapters included."""
    return sum(parameter.numel() for parameter in model.parameters())


def probe_tokens(model: Any) -> torch.Tensor:
    """A few tokens that are in the model's vocabulary (1, position), to see whether two ways make the same of them."""
    import torch

    return torch.arange(PROBE_WIDTH, device=model.device)[None] % model.get_output_embeddings().weight.shape[0]


def _load(base: str, device: str | None, kind: Any, precision: str | None = None, **extra: Any) -> tuple[Any, Any]:
    """Model and tokenizer, refused unless both fit (``models.base_fit``); ``num_labels`` asks for a new head."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    device = pick_device(device)
    local = local_directory(base)
    files: dict[str, Any] = {
        "pretrained_model_name_or_path": str(local) if local is not None else base,
        "trust_remote_code": False,
    }
    labels = {name: extra.pop(name) for name in ("num_labels",) if name in extra}
    dtype = torch.bfloat16 if device.startswith("cuda") and precision != "fp32" else torch.float32
    placed = {"device_map": {"": device}} if "quantization_config" in extra else {}
    with quiet_loading():
        config = at_hand_first(
            lambda offline: AutoConfig.from_pretrained(**files, local_files_only=offline, **labels), base, local
        )
        refuse_other_kind(config, base)
        if labels:
            refuse_without_scores(config, base)
        fit_configuration(config)
        tokenizer = at_hand_first(
            lambda offline: AutoTokenizer.from_pretrained(**files, local_files_only=offline), base, local
        )
        model, info = at_hand_first(
            lambda offline: kind.from_pretrained(
                **files,
                config=config,
                dtype=dtype,
                local_files_only=offline,
                output_loading_info=True,
                **placed,
                **extra,
            ),
            base,
            local,
        )
    refuse_two_way(model, base)
    refuse_unfit_weights(model, info, base, fresh=(HEAD,) if labels else ())
    fit_tokenizer(tokenizer, embedding_rows(model), base)
    fix_template_date(tokenizer)
    model.requires_grad_(False)
    if "quantization_config" not in extra:  # a quantised model was put in its place while it was loaded
        model = model.to(device)
    return model.eval(), tokenizer


def check_quantize(quantize: str) -> None:
    """Refuse a base in fewer bits where the library that makes it is missing."""
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise InvalidInput(
            f"quantize={quantize} needs bitsandbytes, which is not installed: `pip install bitsandbytes`, "
            "or leave quantize out."
        )


def _quantised(quantize: str) -> dict[str, Any]:
    """What a load is told to hold the linear layers in fewer bits; heads and embeddings stay as they are."""
    check_quantize(quantize)
    if quantize == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score", "lm_head"])
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
            llm_int8_skip_modules=["score", "lm_head"],
        )
    return {"quantization_config": config}


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Loading bars and the expected 'newly initialized head' notices are noise in a run's log."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
