"""REINFORCE leave-one-out: draw replies, score them, and make those likelier that beat the others to their prompt.

TRL's trainers (Ahmadian et al. 2024, arXiv 2402.14740; with ``advantage=grpo`` the group-relative advantage of
Shao et al. 2024, arXiv 2402.03300). No critic: the other replies to the prompt are the baseline. The reward is a
reward checkpoint, several together, or a reward function. Each nat away from the parent costs ``beta``; the parent
is the reference, adapter and all, never the bare base beneath it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from training.forward.precision import choose_precision
from training.generation.replies import ReplyReader
from training.generation.sampling import banned_tokens, end_tokens
from training.methods.rft import fitting_prompts
from training.models.base_fit import embedding_rows
from training.models.chat import Messages, encode_prompt, prompt_text
from training.models.loading import LoadedPolicy, parameter_count
from training.models.memory_estimate import tell_preflight
from training.reporting.reporter import Reporter, RunContext
from training.rewards.scorers import Scorer, open_scorer
from training.settings.rloo import RlooSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.callbacks import step_callback
from training.trainer.dropout import disable_dropout
from training.trainer.policy_run import PolicyOutcome, load_parent, open_start, save_policy_run, work_prompts
from training.trainer.reference import complete_reference_copy, drop_reference_copy
from training.trainer.running import run_trainer, trainer_scope
from training.trainer.subclasses import quiet

CURVES = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_spread",
    "frac_reward_zero_std": "groups_alike",
    "kl": "kl_per_token",
    "entropy": "entropy",
    "completions/mean_length": "reply_tokens",
    "completions/clipped_ratio": "cut_replies",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}


def run(context: RunContext) -> dict[str, Any]:
    """Reinforce a policy; the result names the new checkpoint and policy."""
    from training.models.loading import load_base

    settings: RlooSettings = context.settings
    start = open_start(context)
    scorer = open_scorer(
        context.db, context.home, settings.reward, settings.reward_function, settings.combine, settings.doubt
    )
    base, tokenizer = load_base(start.parent.base)
    prompts = [row.messages for row in work_prompts(context, start.dataset, settings.prompts)]
    usable = fitting_prompts(
        LoadedPolicy(base, tokenizer, start.parent.base), prompts, settings.max_new_tokens, context
    )
    del base
    outcome = train_rloo(
        start.parent.base,
        start.adapter,
        usable,
        scorer,
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
    )
    return save_policy_run(context, start, outcome, reference=settings.beta > 0)


def train_rloo(
    base: str,
    parent_adapter: Path | None,
    prompts: Sequence[Messages],
    scorer: Scorer,
    settings: RlooSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
) -> PolicyOutcome:
    """Train on plain values; ``directory`` keeps the states to resume from."""
    model, tokenizer, peft_config = load_parent(base, parent_adapter, settings, reporter, device)
    asked = max(len(encode_prompt(tokenizer, messages)) for messages in prompts)
    tell_preflight(
        model,
        settings,
        reporter,
        rows=len(prompts) * settings.samples,
        left_out=0,
        longest=asked + settings.max_new_tokens,
        tokens=asked + settings.max_new_tokens,
        noun="replies to draw",
    )
    figures: dict[str, float] = {}
    with trainer_scope():
        trainer = _build(model, tokenizer, prompts, scorer, settings, directory, peft_config)
        trainer.add_callback(step_callback(reporter, CURVES, figures))
        run_trainer(trainer, directory, attempt, reporter)
    drop_reference_copy(trainer.model)
    return PolicyOutcome(trainer.model.eval(), tokenizer, figures, {"prompts": len(prompts)})


def _build(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Messages],
    scorer: Scorer,
    settings: RlooSettings,
    directory: Path,
    peft_config: Any,
) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    trainer_class, config = (RLOOTrainer, RLOOConfig) if settings.advantage == "rloo" else (GRPOTrainer, GRPOConfig)
    by_text = {prompt_text(tokenizer, messages): messages for messages in prompts}

    class OwnTemplate(quiet(trainer_class)):  # type: ignore[misc]
        def _tokenize_prompts(self, texts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            # The texts are from training.models.chat, special tokens and all
            return [encode_prompt(tokenizer, by_text[text]) for text in texts], None, {}

        def _get_train_sampler(self, *dataset: Any) -> Any:
            return order_by_epoch(super()._get_train_sampler(*dataset))

    policy = LoadedPolicy(model, tokenizer, "")
    longest = max(len(encode_prompt(tokenizer, messages)) for messages in prompts) + settings.max_new_tokens
    tokens = [longest] * (len(by_text) * settings.samples)
    precision, _why = choose_precision(None, model.device.type, parameter_count(model))
    arguments = trainer_arguments(settings, model, tokens, directory, precision)
    del arguments["neftune_noise_alpha"], arguments["max_length"]
    disable_dropout(model)
    ends = end_tokens(policy)
    model.generation_config.stop_strings = None  # the drawing of TRL would refuse them
    model.generation_config.eos_token_id = ends  # TRL reads here what ends a reply, the template's end included
    trainer = OwnTemplate(
        model=model,
        reward_funcs=_reward_function(scorer, ReplyReader(tokenizer)),
        args=config(
            **arguments,
            num_generations=settings.samples,
            max_completion_length=settings.max_new_tokens,
            temperature=settings.temperature,
            beta=settings.beta,
            epsilon=settings.clip,
            generation_kwargs={"suppress_tokens": banned_tokens(tokenizer, ends, embedding_rows(model))},
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": text, "conversation": json.dumps(list(map(dict, m)))} for text, m in by_text.items()]
        ),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    complete_reference_copy(trainer.model)
    return trainer


def order_by_epoch(sampler: Any) -> Any:
    """TRL's sampler with an order that depends on seed and epoch alone, so that a resumed run meets the same prompts.

    Its own keeps one generator over the epochs, which begins again where a run is resumed.
    """

    class ByEpoch(type(sampler)):  # type: ignore[misc]
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            """The trainer says which epoch begins."""
            self.epoch = epoch

        def __iter__(self) -> Iterator[int]:
            self.generator.manual_seed(self.seed + self.epoch)
            return super().__iter__()  # type: ignore[no-any-return]

    sampler.__class__ = ByEpoch
    return sampler


def _reward_function(scorer: Scorer, reader: ReplyReader) -> Callable[..., list[float]]:
    """The scorer as TRL calls it: columns of the dataset in, one number per reply out; reasoning is not scored."""

    def reward(completions: list[str], conversation: list[str], **_: Any) -> list[float]:
        replies = [reader.split(text).answer.strip() for text in completions]
        return scorer.score_all(list(zip(map(json.loads, conversation), replies, strict=True)))

    return reward
