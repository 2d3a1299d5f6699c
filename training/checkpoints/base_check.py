"""What can be known of a base before it replies: examined when it is added, by headers and empty tensors.

Nothing of the weights is read but their names and shapes, so that a large model is examined in seconds. What could not
be examined (a hub id that was not fetched yet, weights in a quantised form) is said, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput
from training.models.base_files import at_hand_first, cached_directory, local_directory
from training.models.base_fit import (
    PROBE_TURNS,
    embedding_rows,
    fit_configuration,
    fit_tokenizer,
    refuse_other_kind,
    refuse_two_way,
    refuse_unfit_weights,
)
from training.models.chat import encode_exchange, examine_template
from training.models.chat_template import fix_template_date
from training.models.loading import parameter_count, quiet_loading

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Examination:
    """What was examined of a base and found in order, and what could not be examined; each in a few words.

    ``base_hash`` is None where the files are not at hand.
    """

    base: str
    examined: tuple[str, ...]
    not_examined: tuple[str, ...] = ()
    base_hash: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left unexamined."""
        return not self.not_examined


@dataclass(frozen=True)
class Opened:
    """A base that was examined: its configuration, its tokenizer, and the model with empty tensors where it has one."""

    examination: Examination
    directory: Path
    config: Any
    tokenizer: Any
    model: Any | None


def examine_base(base: str) -> Examination:
    """Examine configuration, tokenizer, chat template, weights and window of a base whose files are at hand.

    Raises InvalidInput or NotFound with the first fault. A hub id that is not on this machine is not an error.
    """
    directory = local_directory(base) or cached_directory(base)
    if directory is None:
        return Examination(base, (), ("anything: it is not on this machine, and its first use fetches it",))
    return open_examined(base, directory).examination


def open_examined(base: str, directory: Path) -> Opened:
    """Examine a base whose files are in ``directory``, as ``examine_base`` does, and give what was opened for it."""
    _refuse_adapter(directory, base)
    from transformers import AutoConfig, AutoTokenizer

    files: dict[str, Any] = {
        "pretrained_model_name_or_path": str(directory),
        "local_files_only": True,
        "trust_remote_code": False,
    }
    with quiet_loading():
        config = at_hand_first(lambda _: AutoConfig.from_pretrained(**files), base, directory)
        refuse_other_kind(config, base)
        fit_configuration(config)
        tokenizer = at_hand_first(lambda _: AutoTokenizer.from_pretrained(**files), base, directory)
        fix_template_date(tokenizer)
        examine_template(tokenizer)
        reason = _why_not_weights(config, directory, is_local=local_directory(base) is not None)
        model, info = (None, {}) if reason else _on_meta(config, files, base, directory)
    rows = int(config.get_text_config().vocab_size) if model is None else embedding_rows(model)
    fit_tokenizer(tokenizer, rows, base)
    window = _examine_window(config, tokenizer, base)
    examined = [f"configuration ({config.model_type})", "tokenizer", "chat template", f"window ({window})"]
    if model is None:
        unseen = (f"the weights: {reason or 'their layout needs them loaded'}",)
        return Opened(Examination(base, tuple(examined), unseen), directory, config, tokenizer, None)
    refuse_two_way(model, base)
    refuse_unfit_weights(model, info, base)
    from training.checkpoints.hashing import describe_base

    examined.append(f"weights (complete, {parameter_count(model) / 1e6:,.1f} million parameters)")
    examination = Examination(base, tuple(examined), (), describe_base(base))
    return Opened(examination, directory, config, tokenizer, model)


def _refuse_adapter(directory: Path, base: str) -> None:
    """An adapter beside a configuration would be put over its own base without a word."""
    if (directory / ADAPTER_CONFIG).is_file():
        raise InvalidInput(
            f"{base!r} holds a PEFT adapter ({ADAPTER_CONFIG}), and a base must be a whole model. Merge the adapter "
            "into its base (`merge_and_unload` of peft), save that, and add it."
        )


def _why_not_weights(config: Any, directory: Path, *, is_local: bool) -> str | None:
    """Why the weights cannot be compared with the configuration here; None where they can."""
    if getattr(config, "quantization_config", None) is not None:
        return "they are stored in a quantised form, which is only understood where it is loaded"
    has_weights = any(any(directory.glob(pattern)) for pattern in WEIGHTS)
    return None if has_weights or is_local else "they were not fetched yet, and its first use fetches them"


def _on_meta(config: Any, files: dict[str, Any], base: str, directory: Path) -> tuple[Any, dict[str, Any]]:
    """The model with empty tensors, and Transformers' report of what its files hold; no model where that cannot be."""
    from transformers import AutoModelForCausalLM

    def load(_offline: bool) -> tuple[Any, dict[str, Any]]:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **files, config=config, device_map={"": "meta"}, output_loading_info=True
            )
        except RuntimeError as error:
            if "meta" in str(error):  # an architecture that computes with its weights while they are loaded
                return None, {}
            raise
        model, info = loaded
        return model, info

    return at_hand_first(load, base, directory)


def _examine_window(config: Any, tokenizer: Any, base: str) -> str:
    """The window in words; InvalidInput where not even a short exchange fits."""
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    if window is None:
        return "no limit is named"
    needed = len(encode_exchange(tokenizer, PROBE_TURNS[:1], PROBE_TURNS[1]["content"]).ids)
    if int(window) < needed:
        raise InvalidInput(
            f"The model {base!r} reads {window} tokens at once (max_position_embeddings), and the shortest exchange "
            f"takes {needed}. Correct its config.json, or choose another model."
        )
    named = int(getattr(tokenizer, "model_max_length", 0) or 0)
    shorter = f"; its tokenizer names {named}" if 0 < named < int(window) else ""
    return f"{window} tokens{shorter}"
