"""Supervised fine-tuning: the policy learns to reply as edited and chosen replies do.

TRL's trainer; the loss counts the tokens of the reply alone. Packing puts several exchanges into one row with
positions that begin again for each, so that no reply sees another; the loss is the same as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

from feedback.errors import NotEnoughData
from feedback.types import Message
from training.data.encoding import Encoder
from training.data.pairs import FEW_PAIRS, MIN_PAIRS
from training.forward.trainer_forward import TrainerForward
from training.models.chat import window_of
from training.models.memory_estimate import tell_preflight
from training.reporting.reporter import Reporter, RunContext
from training.settings.rft import RftSettings
from training.settings.sft import SftSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.callbacks import step_callback
from training.trainer.policy_run import PolicyOutcome, load_parent, open_start, save_policy_run
from training.trainer.running import run_trainer, trainer_scope
from training.trainer.subclasses import silenced

IGNORED = -100  # the label that torch's cross-entropy leaves out
CURVES = {
    "loss": "loss",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}


class Imitated(Protocol):
    """An exchange whose reply is learnt."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation that awaits the reply."""
        ...

    @property
    def reply(self) -> str:
        """The reply."""
        ...

    @property
    def cut(self) -> bool:
        """Whether it was cut at its length limit, so that it has no end."""
        ...


class TokenRow(TypedDict):
    """An exchange as token ids; ``labels`` are the same with the prompt ignored."""

    input_ids: list[int]
    labels: list[int]
    length: int


def run(context: RunContext) -> dict[str, Any]:
    """Train a policy on a dataset's demonstrations; the result names the new checkpoint and policy."""
    from feedback.datasets.examples import list_demonstrations

    settings: SftSettings = context.settings
    start = open_start(context)
    examples = [
        example
        for example in list_demonstrations(context.db, settings.dataset, split="train")
        if settings.replies in ("all", example.origin)
    ]
    if len(examples) < MIN_PAIRS:
        raise NotEnoughData(
            f"The dataset {settings.dataset!r} has {len(examples)} replies to imitate (replies={settings.replies}); at "
            f"least {MIN_PAIRS} are needed and {FEW_PAIRS} or more are advised. Judge or edit more, and freeze again."
        )
    outcome = train_sft(
        start.parent.base,
        start.adapter,
        examples,
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
    )
    edited = sum(example.origin == "edited" for example in examples)
    return save_policy_run(context, start, outcome, reference=False, edited=edited)


def train_sft(
    base: str,
    parent_adapter: Path | None,
    examples: Sequence[Imitated],
    settings: SftSettings | RftSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
) -> PolicyOutcome:
    """Train on plain values; ``directory`` keeps the states to resume from."""
    model, tokenizer, peft_config = load_parent(base, parent_adapter, settings, reporter, device)
    encoder = Encoder(tokenizer, min(settings.max_length, window_of(model)))
    rows = encode_examples(encoder, examples)
    encoder.report(reporter, "replies", len(examples))
    if len(rows) < MIN_PAIRS:
        raise NotEnoughData(
            f"Of {len(examples)} replies {encoder.left_why}, which leaves {len(rows)}; at least {MIN_PAIRS} are "
            f"needed. Raise max_length (now {settings.max_length})."
        )
    if len(rows) < FEW_PAIRS:
        reporter.log(f"warning: only {len(rows)} replies; below about {FEW_PAIRS} a run mostly learns them by heart")
    row = max(row["length"] for row in rows)
    tell_preflight(
        model, settings, reporter, rows=len(rows), left_out=encoder.left_out, longest=row, tokens=row, noun="replies"
    )
    figures: dict[str, float] = {}
    with trainer_scope():
        trainer = _build(model, tokenizer, rows, encoder.max_length, settings, directory, peft_config, reporter)
        trainer.add_callback(step_callback(reporter, CURVES, figures))
        run_trainer(trainer, directory, attempt, reporter)
    counts = {"replies": len(rows), **encoder.counts}
    return PolicyOutcome(trainer.model.eval(), tokenizer, figures, counts)


def encode_examples(encoder: Encoder, examples: Sequence[Imitated]) -> list[TokenRow]:
    """The exchanges as token ids with labels on the reply and its end alone, those that can be trained on."""
    rows = []
    for example in examples:
        exchanges = encoder.encode(example.messages, [(example.reply, example.cut)])
        if exchanges is not None:
            (exchange,) = exchanges
            labels = [IGNORED] * len(exchange.prompt) + exchange.reply
            rows.append(TokenRow(input_ids=exchange.ids, labels=labels, length=len(labels)))
    return rows


def _build(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    longest: int,
    settings: SftSettings | RftSettings,
    directory: Path,
    peft_config: Any,
    reporter: Reporter,
) -> Any:
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer, pack_dataset

    disable_progress_bars()
    data = Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows])
    lengths: Sequence[Any] = rows
    if settings.packing:
        data = pack_dataset(data, longest, "bfd")
        lengths = [{"length": len(pack["input_ids"])} for pack in data]
    forward = TrainerForward.for_run(settings, model, reporter)
    arguments = trainer_arguments(settings, model, [row["length"] for row in lengths], directory, forward.precision)
    return silenced(SFTTrainer, lengths, settings.seed, forward)(
        model=model,
        args=SFTConfig(**arguments, packing=settings.packing, packing_strategy="bfd"),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
