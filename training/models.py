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

from feedback.errors import InvalidInput, NotFound
from training.starter import STARTER_BASE, STARTER_DIR

if TYPE_CHECKING:
    import torch

    from training.heads import Pooling

HEAD = "score"  # where a sequence classifier keeps its head
HEAD_FILE = "head.safetensors"  # of a role beside a policy, in the directory that has the role's name
PROBE_WIDTH = 12
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")


@dataclass
class LoadedPolicy:
    """A model that can reply. ``model`` is the bare base, or the base under a PEFT adapter.

    ``folds`` is off for a model in training: folding there and back would round the frozen base.
    """

    model: Any
    tokenizer: Any
    base: str
    folds: bool = True
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
        from training.adapters import can_fold

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


def load_base(base: str, device: str | None = None, quantize: str = "none") -> tuple[Any, Any]:
    """The frozen causal model and its tokenizer: bf16 on a GPU, fp32 on CPU; ``quantize`` is none, 8bit or 4bit."""
    from transformers import AutoModelForCausalLM

    return _load(base, device, AutoModelForCausalLM, **_quantised(quantize))


def load_scorer(
    base: str,
    device: str | None = None,
    pooling: Pooling | Callable[[int], Pooling] = "last",
    quantize: str = "none",
    *,
    own_name: bool | None = None,
    reads_end: bool = True,
) -> tuple[Any, Any]:
    """The base with an untrained scalar head, and its tokenizer: what a reward model starts from.

    ``pooling`` may depend on the number of parameters. ``own_name`` says whether the head lies where plain PEFT does
    not look for it; left out, it does where plain transformers would read it in another way. ``reads_end`` is off for
    reward models of earlier versions; see ``training.classifiers``.
    """
    from transformers import AutoModelForSequenceClassification

    from training.classifiers import needs_own_name, place_head, read_by_mask

    model, tokenizer = _load(base, device, AutoModelForSequenceClassification, num_labels=1, **_quantised(quantize))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    read_by_mask(model, base, reads_end=reads_end)
    wanted = pooling if isinstance(pooling, str) else pooling(parameter_count(model))
    own = needs_own_name(wanted, tokenizer) if own_name is None else own_name
    place_head(model, wanted, own_name=own)
    return model, tokenizer


def attach_adapter(model: Any, directory: Path, *, trainable: bool = False, name: str = "default") -> Any:
    """The model under the adapter saved in a directory, of whatever kind; see ``training.adapters``."""
    from training import adapters

    return adapters.attach_adapter(model, directory, trainable=trainable, name=name)


def parameter_count(model: Any) -> int:
    """How many parameters the model has, adapters included."""
    return sum(parameter.numel() for parameter in model.parameters())


def probe_tokens(model: Any) -> torch.Tensor:
    """A few tokens that are in the model's vocabulary (1, position), to see whether two ways make the same of them."""
    import torch

    return torch.arange(PROBE_WIDTH, device=model.device)[None] % model.get_output_embeddings().weight.shape[0]


def base_directory(base: str) -> Path:
    """The directory that holds a base's files: itself, or the local copy of a hub id."""
    local = _local_directory(base)
    if local is not None:
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise _no_such_model(base) from error


def _local_directory(base: str) -> Path | None:
    """The directory a base names, or None when it is a hub id."""
    if base == STARTER_BASE:
        return STARTER_DIR
    path = Path(base).expanduser()
    if base.strip() and path.is_dir():
        if not (path / "config.json").is_file():
            raise NotFound("model", base, hint="The directory is there, but it holds no config.json.")
        return path
    if base.startswith(_PATH_STARTS) or path.is_absolute() or base.count("/") > 1 or not base.strip():
        raise NotFound("model", base, hint="No directory has this path. Check it, or give a Hugging Face id.")
    return None


def _no_such_model(base: str) -> NotFound:
    return NotFound(
        "model",
        base,
        hint="It is neither a directory nor a Hugging Face model at hand here. Give the path of a model directory, or "
        "an id such as Qwen/Qwen2.5-0.5B-Instruct; the first use of an id needs the network.",
    )


def _load(base: str, device: str | None, kind: Any, **extra: Any) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    device = pick_device(device)
    local = _local_directory(base)
    source = str(local) if local is not None else base
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    placed = {"device_map": {"": device}} if "quantization_config" in extra else {}
    tokenizer = _at_hand_first(
        lambda offline: AutoTokenizer.from_pretrained(source, local_files_only=offline), base, local
    )
    with _quiet_loading():
        model = _at_hand_first(
            lambda offline: kind.from_pretrained(source, dtype=dtype, local_files_only=offline, **placed, **extra),
            base,
            local,
        )
    if tokenizer.eos_token_id is None:
        raise InvalidInput(
            f"The tokenizer of {base!r} names no end token, so no reply could end. Choose another model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
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


def _at_hand_first(load: Callable[[bool], Any], base: str, local: Path | None) -> Any:
    """Load from disk; only a hub id that is not there yet goes to the network."""
    try:
        return load(True)
    except (OSError, ValueError) as error:
        if local is not None:
            raise NotFound("model", base, hint=f"Its directory cannot be loaded: {_first_line(error)}") from error
    try:
        return load(False)
    except (OSError, ValueError) as error:
        raise _no_such_model(base) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet_loading() -> Iterator[None]:
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
