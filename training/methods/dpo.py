"""Direct preference optimisation: the policy moves towards chosen replies, held to its parent.

TRL's trainer on LoRA. A parent that is a bare base gets a new adapter; a parent with an adapter has it
trained on, and the checkpoint stays one adapter over the base. The reference is the parent in both cases: its
log-probabilities are computed once, before the first step, when policy and parent are still the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput
from feedback.types import Policy, PreferencePair
from training.checkpoints import (
    Adapter,
    Manifest,
    check_checkpoint,
    check_name_free,
    describe_base,
    library_versions,
    measure_probe,
    policy_directory,
    register_checkpoint,
    save_checkpoint,
)
from training.config import DpoSettings
from training.models import attach_adapter, load_base
from training.progress import Reporter, RunContext
from training.trainers import (
    TokenPair,
    adapter_settings,
    adapter_writer,
    copy_adapter,
    lora_config,
    run_trainer,
    silenced,
    step_callback,
    trainer_arguments,
    trainer_scope,
    usable_pairs,
)

CURVES = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
    "entropy": "entropy",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}
WORRYING_DROP = 20.0  # nats; chosen replies this much less likely than before mean the policy forgets to speak


@dataclass
class DpoOutcome:
    """A trained policy model with the closing figures of its curves and the number of pairs it learnt from."""

    model: Any
    tokenizer: Any
    figures: dict[str, float]
    pairs: int
    too_long: int


def train(context: RunContext) -> dict[str, Any]:
    """Train a policy on a dataset's pairs; the result names the new checkpoint and policy."""
    from feedback.store.datasets import get_dataset, list_pairs
    from feedback.store.policies import get_champion, get_policy

    settings: DpoSettings = context.settings
    dataset = get_dataset(context.db, settings.dataset)
    parent = get_policy(context.db, settings.parent) if settings.parent else get_champion(context.db)
    if parent is None:
        raise InvalidInput("There is no champion to train: name a parent, or promote a policy first.")
    name = settings.name or f"{context.run.method}-{context.run.id.partition('-')[2]}"
    check_name_free(context.db, name, context.run.id)
    context.progress.report(0.0, f"loading {parent.name}")
    parent_adapter = policy_directory(context.db, context.home, parent)
    if parent_adapter is not None:
        check_checkpoint(parent_adapter, "policy", parent.base)
    outcome = train_dpo(
        parent.base,
        parent_adapter,
        list_pairs(context.db, dataset.id, split="train"),
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
    )
    manifest = Manifest(
        kind="policy",
        name=name,
        base=parent.base,
        base_hash=describe_base(parent.base),
        adapter=Adapter(kind="LORA", settings=adapter_settings(outcome.model)),
        parent=parent.id,
        reference=parent.id,
        dataset=dataset.id,
        dataset_hash=dataset.hash,
        run=context.run.id,
        method=DpoSettings.METHOD,
        config=settings.model_dump(mode="json"),
        seed=settings.seed,
        versions=library_versions(),
        probe=measure_probe("policy", outcome.model, outcome.tokenizer),
    )
    path = save_checkpoint(context.home, name, adapter_writer(outcome.model), manifest)
    checkpoint = register_checkpoint(context.db, context.home, context.run, manifest, path)
    policy = register_policy(context, name, parent.base, checkpoint.id, parent.id)
    shutil.rmtree(context.run_dir / "trainer", ignore_errors=True)  # nothing is left to resume
    return {
        "checkpoint": checkpoint.name,
        "policy": policy.name,
        "pairs": outcome.pairs,
        "too_long": outcome.too_long,
        **outcome.figures,
    }


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
) -> DpoOutcome:
    """Train on plain values: base and adapter of the parent, pairs, settings; ``directory`` keeps states to resume."""
    model, tokenizer = load_base(base, device, settings.quantize)
    encoded, too_long = usable_pairs(tokenizer, model, pairs, settings, reporter)
    peft_config = None
    if parent_adapter is None:
        peft_config = lora_config(settings, "CAUSAL_LM")
    else:
        model = attach_adapter(model, parent_adapter, trainable=True)
        reporter.log("the parent's adapter is trained on; lora_rank and lora_alpha are the parent's")
    figures: dict[str, float] = {}
    with trainer_scope():
        trainer = _build(model, tokenizer, encoded, settings, directory, peft_config, reporter)
        trainer.add_callback(step_callback(reporter, CURVES, figures))
        run_trainer(trainer, directory, attempt, reporter)
    _warn_of_forgetting(settings.beta, figures, reporter)
    return DpoOutcome(trainer.model.eval(), tokenizer, figures, len(encoded), too_long)


def register_policy(context: RunContext, name: str, base: str, checkpoint_id: str, parent_id: str) -> Any:
    """Enter the new policy; entered before by the same run, it is given back."""
    from feedback.errors import NotFound
    from feedback.store.policies import get_policy, save_policy

    try:
        row = get_policy(context.db, name)
        if row.run_id == context.run.id:
            return row
    except NotFound:
        pass
    policy = Policy(name=name, base=base, checkpoint_id=checkpoint_id, parent_id=parent_id, run_id=context.run.id)
    return save_policy(context.db, policy)


def _build(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[TokenPair],
    settings: DpoSettings,
    directory: Path,
    peft_config: Any,
    reporter: Reporter,
) -> Any:
    """The trainer, with the reference's log-probabilities in its dataset and one adapter in its model."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class ReferenceFirst(silenced(DPOTrainer, encoded, settings.seed)):  # type: ignore[misc]
        """Computes the reference in batches of like length, without TRL's cache files and bars."""

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            if "ref" in self.model.peft_config:
                copy_adapter(self.model, "default", "ref")
            rows = list(dataset)
            order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["chosen_ids"]) - len(rows[i]["rejected_ids"]))
            chosen, rejected = [0.0] * len(rows), [0.0] * len(rows)
            for start in range(0, len(order), batch_size):
                reporter.check()
                places = order[start : start + batch_size]
                batch = self._prepare_inputs(self.data_collator([rows[i] for i in places]))
                for sums, found in zip((chosen, rejected), self.compute_ref_log_probs(self.model, batch), strict=True):
                    for place, value in zip(places, found.tolist(), strict=True):
                        sums[place] = value
            return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    arguments = trainer_arguments(settings, model, len(encoded), directory)
    trainer = ReferenceFirst(
        model=model,
        args=DPOConfig(
            **arguments,
            beta=settings.beta,
            loss_type=[settings.loss],
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=max(32, settings.batch_size) if arguments["use_cpu"] else None,
        ),
        train_dataset=Dataset.from_list([dict(pair) for pair in encoded]),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    if "ref" in trainer.model.peft_config:
        # TRL's frozen copy of the parent has done its part; left in, it would be saved with the policy
        trainer.model.delete_adapter("ref")
    trainer.model.set_adapter("default")
    return trainer


def _warn_of_forgetting(beta: float, figures: dict[str, float], reporter: Reporter) -> None:
    """A chosen reply that became much less likely is the known way for DPO to go wrong."""
    if not figures:
        return
    change = figures["chosen_reward"] / beta  # nats: the reward is beta times the log-ratio to the parent
    figures["chosen_log_prob_change"] = change
    if change < -WORRYING_DROP:
        reporter.log(
            f"warning: chosen replies became less likely by {-change:.0f} nats; read some of this policy's replies "
            "before promoting it, or train with a higher beta or a lower learning_rate"
        )
