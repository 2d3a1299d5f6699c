"""The probe of a checkpoint: fixed exchanges, and what the model in memory made of them when it was saved.

The token ids are kept with the values. So two things are told apart when a checkpoint is loaded: whether the weights
compute what they did, and whether the base still encodes a conversation as it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from feedback.errors import CheckpointError
from training.models.chat import encode_exchange, encode_prompt
from training.models.chat_template import fix_template_date, uses_clock

PROBES = (
    ("Write a short note to thank a friend.", "Thank you so much, dear friend. Your help meant a lot to me."),
    ("Explain rain to a child.", "Clouds are made of tiny drops, and when they grow heavy they fall."),
    ("Name one thing to do on a quiet evening.", "Read a book by the window."),
)
TokenExchange = tuple[list[int], list[int]]  # prompt ids, reply ids


class Probe(BaseModel):
    """Fixed exchanges and what the model in memory made of them; ``dtype`` tells how exact that was.

    ``tokens`` are the ids the values were measured on; none in checkpoints of before 2026-12, whose replies were
    encoded apart from their prompts.
    """

    model_config = ConfigDict(extra="forbid")

    exchanges: list[tuple[str, str]]
    values: list[float]
    dtype: str
    tokens: list[TokenExchange] = []

    def tolerance(self, dtype: str) -> list[float]:
        """How far each value may be off when measured again: wide where either side was computed in 16 bits."""
        exact = dtype == self.dtype == "float32"
        share, floor = (1e-3, 1e-2) if exact else (5e-2, 0.25)
        return [floor + share * abs(value) for value in self.values]

    def agrees_with(self, values: Sequence[float], dtype: str) -> bool:
        """Whether values measured again are those that were saved, as exactly as their types allow."""
        allowed = self.tolerance(dtype)
        return all(abs(new - old) <= limit for new, old, limit in zip(values, self.values, allowed, strict=True))


def measure_probe(kind: Literal["policy", "reward"], model: Any, tokenizer: Any) -> Probe:
    """What a model makes of the fixed exchanges: log-probabilities of a policy, scores of a reward model."""
    tokens = _encoded(tokenizer)
    dtype = _dtype_of(model)
    return Probe(exchanges=list(PROBES), values=_values(kind, model, tokenizer, tokens), dtype=dtype, tokens=tokens)


def check_probe(
    directory: Path, base: str, probe: Probe, kind: Literal["policy", "reward"], model: Any, tokenizer: Any
) -> None:
    """Refuse a loaded checkpoint that is asked in other tokens, or computes other values, than when it was saved."""
    tokens = probe_exchanges(probe, tokenizer, directory, base)
    values = _values(kind, model, tokenizer, tokens)
    if not probe.agrees_with(values, _dtype_of(model)):
        raise CheckpointError(
            f"The checkpoint {directory} does not do what it did when it was saved: its probe gives "
            f"{listed(values)} instead of {listed(probe.values)}. It is not loaded."
        )


def probe_exchanges(probe: Probe, tokenizer: Any, directory: Path, base: str) -> list[TokenExchange]:
    """The token ids a probe was measured on; CheckpointError where this tokenizer no longer gives them."""
    if not probe.tokens:
        return _encoded_apart(tokenizer, probe, directory)
    if _encoded(tokenizer) != probe.tokens:
        raise CheckpointError(
            f"The tokenizer or chat template of the base {base!r} has changed since the checkpoint {directory} was "
            "saved: it encodes the probe otherwise, so the model would be asked in a way it was not trained on. Put "
            "the base's tokenizer files back as they were (tokenizer.json, tokenizer_config.json, "
            "chat_template.jinja), or train again."
        )
    return probe.tokens


def listed(values: Sequence[float]) -> str:
    """Values as part of a sentence."""
    return ", ".join(f"{value:.3f}" for value in values)


def _encoded(tokenizer: Any) -> list[TokenExchange]:
    exchanges = [encode_exchange(tokenizer, [{"role": "user", "content": ask}], reply) for ask, reply in PROBES]
    return [(exchange.prompt, exchange.reply) for exchange in exchanges]


def _encoded_apart(tokenizer: Any, probe: Probe, directory: Path) -> list[TokenExchange]:
    """The ids of a checkpoint of before 2026-12: the reply by itself, then the tokenizer's end token.

    A template that asks for the date is given the day on which the checkpoint was saved.
    """
    if uses_clock(tokenizer):
        saved = max(path.stat().st_mtime for path in directory.glob("*.safetensors"))
        fix_template_date(tokenizer, datetime.fromtimestamp(saved, UTC).date())
    return [
        (
            encode_prompt(tokenizer, [{"role": "user", "content": prompt}]),
            [*tokenizer(reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id],
        )
        for prompt, reply in probe.exchanges
    ]


def _values(
    kind: Literal["policy", "reward"], model: Any, tokenizer: Any, tokens: Sequence[TokenExchange]
) -> list[float]:
    from training.models.scoring import reply_log_probs, row_scores

    if kind == "reward":
        return row_scores(model, tokenizer.pad_token_id, [prompt + reply for prompt, reply in tokens])
    return reply_log_probs(model, tokenizer.pad_token_id, tokens)


def _dtype_of(model: Any) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    quantized = getattr(model.config, "quantization_config", None) is not None
    return f"{dtype} over a quantised base" if quantized else dtype
