"""Direct preference optimisation: the policy moves towards chosen replies, held to its parent.

TRL's trainer. The reference is the parent, adapter and all: its log-probabilities are computed once, before the first
step, when policy and parent are still the same weights, and are read again in every epoch. The loss ``simpo`` needs
no reference; what the parent thought of the replies is still computed, since a fall of the chosen ones is watched
whatever the loss.

Beside the comparison stands a little of the chosen replies' own likelihood (Pang et al. 2024, arXiv 2404.19733, eq. 2).
Without it a taste for short replies has an easy answer: every token a little less likely, which costs long replies
most and ends in a policy that cannot end a sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.types import PreferencePair
from training.data.pairs import TokenPair, pair_tokens, usable_pairs
from training.forward.trainer_forward import TrainerForward
from training.reporting.reporter import Relay, Reporter, RunContext
from training.settings.dpo import DpoSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.callbacks import LATEST, step_callback
from training.trainer.dropout import disable_dropout
from training.trainer.losses import simpo_loss
from training.trainer.policy_run import PolicyOutcome, load_parent, open_start, save_policy_run
from training.trainer.reference import REFERENCES, drop_reference_copy, reference_first
from training.trainer.running import run_trainer, trainer_scope

CURVES = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
    "logps/chosen_change": "chosen_log_prob_change",
    "entropy": "entropy",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}
WORRYING_DROP = 20.0  # nats; chosen replies this much less likely than before mean the policy forgets to speak


def run(context: RunContext) -> dict[str, Any]:
    """Train a policy on a dataset's pairs; the result names the new checkpoint and policy."""
    from feedback.store.datasets.datasets import list_pairs

    settings: DpoSettings = context.settings
    start = open_start(context)
    outcome = train_dpo(
        start.parent.base,
        start.adapter,
        list_pairs(context.db, settings.dataset, split="train"),
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
        cache=context.home.cache / REFERENCES,
    )
    return save_policy_run(context, start, outcome, reference=settings.loss != "simpo")


def train_dpo(
    base: str,
    parent_adapter: Path | None,
    pairs: Sequence[PreferencePair],
    settings: DpoSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
    cache: Path | None = None,
) -> PolicyOutcome:
    """Train on plain values: base and adapter of the parent, pairs, settings.

    ``directory`` keeps the states to resume from, ``cache`` what the parent said of the pairs.
    """
    model, tokenizer, peft_config = load_parent(base, parent_adapter, settings, reporter, device)
    encoded, encoder = usable_pairs(tokenizer, model, pairs, settings, reporter)
    figures: dict[str, float] = {}
    with trainer_scope():
        trainer = _build(model, tokenizer, encoded, settings, directory, peft_config, reporter, cache)
        trainer.add_callback(step_callback(_Watched(reporter), CURVES, figures))
        run_trainer(trainer, directory, attempt, reporter)
    return PolicyOutcome(trainer.model.eval(), tokenizer, figures, {"pairs": len(encoded), **encoder.counts})


def _build(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[TokenPair],
    settings: DpoSettings,
    directory: Path,
    peft_config: Any,
    reporter: Reporter,
    cache: Path | None,
) -> Any:
    """The trainer, with the reference's log-probabilities in its dataset and one adapter in its model."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    forward = TrainerForward.for_run(settings, model, reporter)
    arguments = trainer_arguments(settings, model, pair_tokens(encoded, model, settings), directory, forward.precision)
    anchored = settings.anchor > 0
    disable_dropout(model)
    trainer = _trainer_class(DPOTrainer, encoded, settings, forward, cache)(
        model=model,
        args=DPOConfig(
            **arguments,
            beta=settings.beta,
            loss_type=["sigmoid" if settings.loss == "simpo" else settings.loss, *["sft"] * anchored],
            loss_weights=[1.0, *[settings.anchor] * anchored],
            label_smoothing=settings.noise if settings.loss == "robust" else 0.0,
            ld_alpha=settings.length_weight if settings.length_weight < 1.0 else None,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=2 * arguments["per_device_train_batch_size"],
        ),
        train_dataset=Dataset.from_list([dict(pair) for pair in encoded]),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    drop_reference_copy(trainer.model)
    return trainer


def _trainer_class(
    trainer_class: type,
    encoded: Sequence[TokenPair],
    settings: DpoSettings,
    forward: TrainerForward,
    cache: Path | None,
) -> Any:
    """TRL's trainer with the change of chosen replies among its metrics, and simpo among its losses."""
    columns = ("ref_chosen_logps", "ref_rejected_logps")

    class Trainer(reference_first(trainer_class, encoded, settings.seed, columns, forward, cache)):  # type: ignore[misc]
        step_tokens = 0

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[Any, Any]:
            batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
            counted = zip(self.rows, batches, strict=True)
            self.step_tokens = int(self.total(sum(_chosen_tokens(batch) for rows, batch in counted if rows)))
            return batches, items

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            anchor = settings.anchor * self._token_share(inputs)
            if settings.loss == "simpo":
                loss = _simpo(self, model, inputs, settings, anchor)
            else:
                self.loss_weights = [1.0, anchor][: len(self.loss_types)]
                loss = super()._compute_loss(model, inputs, return_outputs)
            metrics = self._metrics["train"]
            change = metrics["logps/chosen"][-1] - self.gathered(inputs["ref_chosen_logps"]).mean().item()
            metrics["logps/chosen_change"].append(change)
            return loss

        def _token_share(self, inputs: Any) -> float:
            """What the mean over the chosen tokens here counts, so that the step's is the mean over all of its tokens.

            The loss as a whole is weighed by its rows afterwards (``training.data.shares``), which this makes up for.
            """
            if not self.step_rows or not self.rows[self.place]:
                return 1.0
            return float(_chosen_tokens(inputs) * self.step_rows / (self.step_tokens * self.rows[self.place]))

    return Trainer


def _chosen_tokens(inputs: Any) -> int:
    """The tokens of the chosen replies of a batch."""
    return int(inputs["completion_mask"].chunk(2)[0][:, 1:].sum())


def _simpo(trainer: Any, model: Any, inputs: Any, settings: DpoSettings, anchor: float) -> Any:
    """The SimPO loss of a batch, with the same curves as the other losses where they have a meaning."""
    mask = inputs["completion_mask"][:, 1:]
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    )
    sums = (outputs.log_probs[:, -mask.shape[1] :] * mask).sum(1)
    chosen, rejected = sums.chunk(2)
    chosen_length, rejected_length = mask.sum(1).chunk(2)
    losses, lead = simpo_loss(
        chosen, rejected, chosen_length, rejected_length, beta=settings.simpo_beta, margin=settings.simpo_margin
    )
    for name, value in (
        ("logps/chosen", chosen),
        ("logps/rejected", rejected),
        ("rewards/chosen", settings.simpo_beta * chosen / chosen_length),
        ("rewards/rejected", settings.simpo_beta * rejected / rejected_length),
        ("rewards/margins", lead),
        ("rewards/accuracies", (lead > 0).float()),
    ):
        trainer._metrics["train"][name].append(trainer.gathered(value.detach()).mean().item())
    return losses.mean() - anchor * chosen.sum() / chosen_length.sum()


class _Watched(Relay):
    """Passes everything on, and says once, while the run goes, that chosen replies are being forgotten.

    A chosen reply that became much less likely is the known way for DPO to go wrong, and accuracy does not show it.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter)
        self.recent: deque[float] = deque(maxlen=LATEST)
        self.warned = False

    def metrics(self, step: int, **values: float) -> None:
        self.recent.append(values.get("chosen_log_prob_change", 0.0))
        falling = len(self.recent) == LATEST and sum(self.recent) / LATEST < -WORRYING_DROP
        if falling and not self.warned:
            self.warned = True
            self.log(
                f"warning: at step {step} chosen replies are {-sum(self.recent) / LATEST:.0f} nats less likely than at "
                "the start; read some of this policy's replies before promoting it, or train with a higher beta or a "
                "lower learning_rate"
            )
        self.reporter.metrics(step, falling_chosen=float(falling), **values)
