"""Kahneman-Tversky optimisation: good replies become likelier, bad ones less likely, each by itself.

TRL's trainer (Ethayarajh et al. 2024, arXiv 2402.01306). Winners, losers, edited replies and both replies of a
both-bad verdict are its labels, so it learns from verdicts that make no pair. Both kinds weigh the same unless told
otherwise. The reference is the parent, and its log-probabilities are computed once, before the first step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from feedback.datasets.examples import LabelledReply
from feedback.errors import NotEnoughData
from training.data.encoding import Encoder
from training.data.pairs import FEW_PAIRS
from training.forward.trainer_forward import TrainerForward
from training.models.chat import window_of
from training.models.memory_estimate import tell_preflight
from training.reporting.reporter import Reporter, RunContext
from training.settings.kto import KtoSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.callbacks import step_callback
from training.trainer.dropout import disable_dropout
from training.trainer.policy_run import PolicyOutcome, load_parent, open_start, save_policy_run
from training.trainer.reference import REFERENCES, drop_reference_copy, reference_first
from training.trainer.running import run_trainer, trainer_scope

if TYPE_CHECKING:
    from torch import Tensor

TENSORS = ("input_ids", "attention_mask", "completion_mask")
CURVES = {
    "loss": "loss",
    "rewards/chosen": "good_reward",
    "rewards/rejected": "bad_reward",
    "rewards/margins": "margin",
    "logps/chosen": "good_log_prob",
    "logps/rejected": "bad_log_prob",
    "kl": "kl",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}


class LabelledTokens(TypedDict):
    """A labelled reply as token ids; ``KL_completion_ids`` is another prompt's reply, for the estimate of the drift.

    Replies to one prompt are a ``group``, read together so that the prompt is computed once.
    """

    group: str
    prompt_ids: list[int]
    completion_ids: list[int]
    KL_completion_ids: list[int]
    label: bool
    length: int


def run(context: RunContext) -> dict[str, Any]:
    """Train a policy on a dataset's good and bad replies; the result names the new checkpoint and policy."""
    from feedback.datasets.examples import list_labelled_replies

    settings: KtoSettings = context.settings
    start = open_start(context)
    outcome = train_kto(
        start.parent.base,
        start.adapter,
        list_labelled_replies(context.db, settings.dataset, split="train"),
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
        cache=context.home.cache / REFERENCES,
    )
    return save_policy_run(context, start, outcome, reference=True)


def train_kto(
    base: str,
    parent_adapter: Path | None,
    replies: Sequence[LabelledReply],
    settings: KtoSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
    cache: Path | None = None,
) -> PolicyOutcome:
    """Train on plain values; ``directory`` keeps the states to resume from, ``cache`` what the parent said."""
    model, tokenizer, peft_config = load_parent(base, parent_adapter, settings, reporter, device)
    encoder = Encoder(tokenizer, min(settings.max_length, window_of(model)))
    rows = encode_labelled(encoder, replies, settings.seed)
    encoder.report(reporter, "replies", len(replies))
    good = sum(row["label"] for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        raise NotEnoughData(
            f"The dataset {settings.dataset!r} has {good} good and {bad} bad replies to "
            f"train on ({encoder.left_why}); at least one of each is needed. Judge more pairs and freeze a new dataset."
        )
    if len(rows) < FEW_PAIRS:
        reporter.log(f"warning: only {len(rows)} replies; below about {FEW_PAIRS} a run mostly learns noise")
    left_out, longest = encoder.left_out, max(row["length"] for row in rows)
    tell_preflight(
        model, settings, reporter, rows=len(rows), left_out=left_out, longest=longest, tokens=longest, noun="replies"
    )
    weights = class_weights(good, bad, settings)
    reporter.log(f"{good} good replies count {weights[0]:.3g}, {bad} bad ones {weights[1]:.3g}")
    figures: dict[str, float] = {}
    with trainer_scope():
        trainer = _build(model, tokenizer, rows, weights, settings, directory, peft_config, reporter, cache)
        trainer.add_callback(step_callback(reporter, CURVES, figures))
        run_trainer(trainer, directory, attempt, reporter)
    counts = {"good": good, "bad": bad, **encoder.counts}
    return PolicyOutcome(trainer.model.eval(), tokenizer, figures, counts)


def class_weights(good: int, bad: int, settings: KtoSettings) -> tuple[float, float]:
    """What a good and a bad reply count: as set, else the rarer kind counts more, so that both weigh the same.

    The paper wants good·weight : bad·weight between 1:1 and 4:3 (eq. 9); this is 1:1.
    """
    return (
        settings.good_weight or max(1.0, bad / good),
        settings.bad_weight or max(1.0, good / bad),
    )


def encode_labelled(encoder: Encoder, replies: Sequence[LabelledReply], seed: int) -> list[LabelledTokens]:
    """The replies that can be trained on as token ids, each with the reply of another prompt beside it."""
    rows: list[LabelledTokens] = []
    owners: list[str] = []
    for reply in replies:
        exchanges = encoder.encode(reply.messages, [(reply.reply, reply.cut)])
        if exchanges is not None:
            (exchange,) = exchanges
            owners.append(reply.prompt_id)
            rows.append(
                LabelledTokens(
                    group=reply.prompt_id,
                    prompt_ids=exchange.prompt,
                    completion_ids=exchange.reply,
                    KL_completion_ids=[],
                    label=reply.good,
                    length=len(exchange.ids),
                )
            )
    rng = random.Random(seed)
    for row, owner in zip(rows, owners, strict=True):
        others = [i for i in rng.sample(range(len(rows)), min(8, len(rows))) if owners[i] != owner]
        other = rows[others[0]]["completion_ids"] if others else row["completion_ids"]
        row["KL_completion_ids"] = other[: encoder.max_length - len(row["prompt_ids"])]
    return rows


def _trainer_class(trainer_class: type) -> Any:
    """TRL's trainer with the drift from the parent estimated once a step, from all rows of the step.

    The reference is asked about a row's own reply and the other prompt's reply in one batch: their prompt is the same.
    """
    import torch

    class Trainer(trainer_class):  # type: ignore[misc, valid-type]
        drift: Any = None

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> tuple[Any, Any]:
            rows = len(inputs["input_ids"])
            together = {name: _stacked(inputs[name], inputs[f"KL_{name}"]) for name in TENSORS}
            self.calculate_KL = False
            try:
                sums, _ = super().compute_ref_log_probs(model, together)
            finally:
                self.calculate_KL = True
            return sums[:rows], sums[rows:]

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[Any, Any]:
            self.drift = None
            return super().get_batch_samples(epoch_iterator, num_batches, device)

        def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
            if not self.step_batches:  # the parent is asked, before the first step
                return super()._compute_kl_logps(model, batch)
            if self.drift is None:
                found = torch.zeros((), device=self.accelerator.device)
                for rows, one in zip(self.rows, self.step_batches, strict=True):
                    own = self._prepare_inputs(one)
                    found += (super()._compute_kl_logps(model, own) - own["ref_KL_logps"])[:rows].sum()
                self.drift = self.total(found) / self.step_rows
            return batch["ref_KL_logps"] + self.drift

    return Trainer


def _stacked(own: Tensor, other: Tensor) -> Tensor:
    """Two batches (B, T) and (B, S), padded on the right, as one (2B, max(T, S)); what is added is masked out."""
    import torch
    from torch.nn.functional import pad

    width = max(own.shape[1], other.shape[1])
    return torch.cat([pad(one, (0, width - one.shape[1])) for one in (own, other)])


def _build(
    model: Any,
    tokenizer: Any,
    rows: Sequence[LabelledTokens],
    weights: tuple[float, float],
    settings: KtoSettings,
    directory: Path,
    peft_config: Any,
    reporter: Reporter,
    cache: Path | None,
) -> Any:
    """The trainer, with the parent's log-probabilities in its dataset and one adapter in its model."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    columns = ("ref_logps", "ref_KL_logps")
    forward = TrainerForward.for_run(settings, model, reporter)
    trainer_class = _trainer_class(reference_first(KTOTrainer, rows, settings.seed, columns, forward, cache))
    disable_dropout(model)
    arguments = trainer_arguments(settings, model, [row["length"] for row in rows], directory, forward.precision)
    trainer = trainer_class(
        model=model,
        args=KTOConfig(
            **arguments,
            beta=settings.beta,
            desirable_weight=weights[0],
            undesirable_weight=weights[1],
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=2 * arguments["per_device_train_batch_size"],
        ),
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    drop_reference_copy(trainer.model)
    return trainer
