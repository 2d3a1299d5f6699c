"""Rejection-sampling fine-tuning: draw several replies to each prompt, keep what scores best, imitate that.

The parent replies, a reward checkpoint or a reward function scores, and the best replies are demonstrations for
``training.methods.sft``. They are kept with the run, so that a second attempt does not draw again. Choosing the
best of n moves a policy by at most ln n - (n-1)/n nats, which the result tells as ``best_of_kl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from feedback.errors import NotEnoughData
from feedback.files import atomic_write
from feedback.tables import DatasetRow, PolicyRow
from feedback.types import Message, SamplingSettings
from training.data.encoding import check_prompts
from training.generation.own_sampling import own_stop
from training.generation.sampling import log_drawing, log_unfinished, sample
from training.methods.sft import train_sft
from training.models.chat import Messages
from training.models.loading import LoadedPolicy
from training.reporting.reporter import Relay, RunContext
from training.rewards.scorers import Scorer, open_scorer
from training.settings.rft import RftSettings
from training.trainer.policy_run import open_start, save_policy_run, work_prompts

DRY_PROMPTS = 16  # of which a dry run draws; enough that some reply scores above another
DRAWING_SHARE = 0.4  # of the progress bar: about what drawing takes on a CPU


@dataclass(frozen=True)
class Kept:
    """A drawn reply that is imitated, with its score."""

    messages: tuple[Message, ...]
    reply: str
    score: float
    cut: bool = False  # those that were cut are never kept


@dataclass(frozen=True)
class Selection:
    """The kept replies, with the mean score of all that were drawn and of those kept."""

    kept: list[Kept]
    mean_score: float
    kept_score: float


def run(context: RunContext) -> dict[str, Any]:
    """Draw, choose and imitate; the result names the new checkpoint and policy."""
    settings: RftSettings = context.settings
    start = open_start(context)
    selection = _selection(context, start.parent, start.dataset, settings)
    outcome = train_sft(
        start.parent.base,
        start.adapter,
        selection.kept,
        settings,
        context.run_dir / "trainer",
        _SecondHalf(context.progress),
        attempt=context.run.attempt,
    )
    return save_policy_run(
        context,
        start,
        outcome,
        reference=False,
        score_drawn=selection.mean_score,
        score_kept=selection.kept_score,
        best_of_kl=best_of_kl(settings.samples),
    )


def select_best(
    policy: LoadedPolicy,
    scorer: Scorer,
    prompts: Sequence[Messages],
    settings: RftSettings,
    report: Any = None,
    log: Callable[[str], None] = lambda line: None,
) -> Selection:
    """Draw ``samples`` replies to each prompt and keep the ``keep`` best; prompts whose replies all score alike teach
    nothing and are left out."""
    drawn = sample(
        policy,
        prompts,
        settings.samples,
        _sampling(policy, settings),
        settings.seed,
        settings.sampling_batch,
        report,
    )
    flat = [reply for replies in drawn for reply in replies]
    unfinished = sum(reply.unfinished for reply in flat)
    log_unfinished(unfinished, len(flat) - unfinished, _sampling(policy, settings), log)
    # A reply that was cut has no end to learn from, and imitating it would teach the policy not to stop
    ended = [[reply for reply in replies if reply.finish_reason == "stop" and reply.text] for replies in drawn]
    exchanges = [(messages, reply.text) for messages, own in zip(prompts, ended, strict=True) for reply in own]
    scores = iter(scorer.score_all(exchanges))
    kept: list[Kept] = []
    everything: list[float] = []
    for messages, own in zip(prompts, ended, strict=True):
        rated = sorted(((next(scores), reply.text) for reply in own), key=lambda pair: -pair[0])
        everything += [score for score, _ in rated]
        if len(rated) > 1 and rated[0][0] > rated[-1][0]:
            kept += [
                Kept(tuple(Message.model_validate(dict(m)) for m in messages), text, score)
                for score, text in rated[: settings.keep]
            ]
    if len(kept) < 2:
        raise NotEnoughData(
            f"Of {len(exchanges)} replies to {len(prompts)} prompts {len(kept)} scored above the others to the same "
            "prompt; at least 2 are needed. Draw more samples, or choose another reward."
        )
    return Selection(kept, fmean(everything), fmean(one.score for one in kept))


def best_of_kl(n: int) -> float:
    """An upper bound in nats of how far the best of n replies lies from the policy that drew them (Stiennon 2020)."""
    return math.log(n) - (n - 1) / n


def fitting_prompts(
    policy: LoadedPolicy, prompts: Sequence[Messages], max_new_tokens: int, context: RunContext
) -> list[Messages]:
    """The prompts that can be given to the model and leave room for a reply; NotEnoughData for fewer than two."""
    from training.generation.sampling import fitting

    usable = fitting(policy, prompts, SamplingSettings(max_new_tokens=max_new_tokens))
    if len(usable) < len(prompts):
        left_out = len(prompts) - len(usable)
        context.progress.log(
            f"warning: {left_out} prompts are left out: they leave no room for a reply, or the model's chat template "
            "refuses them"
        )
    if len(usable) < 2:
        raise NotEnoughData(f"{len(usable)} prompts can be given to this model; at least 2 are needed. Import more.")
    check_prompts(policy.tokenizer, usable, context.progress)
    return usable


def _sampling(policy: LoadedPolicy, settings: RftSettings) -> SamplingSettings:
    stop = own_stop(policy.model, settings.stop)
    return SamplingSettings(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, stop=stop)


def _selection(context: RunContext, parent: PolicyRow, dataset: DatasetRow | None, settings: RftSettings) -> Selection:
    """What an earlier attempt of this run chose, else drawn and chosen now."""
    from training.checkpoints.opening import open_policy

    path = context.run_dir / "kept.json"
    if context.run.attempt > 1 and path.is_file():
        context.progress.log("the replies of the earlier attempt are used again")
        return _read(path)
    scorer = open_scorer(
        context.db, context.home, settings.reward, settings.reward_function, settings.combine, settings.doubt
    )
    policy = open_policy(context.db, context.home, parent.id)
    limit = min(DRY_PROMPTS, settings.prompts) if settings.dry_run else settings.prompts
    prompts = [row.messages for row in work_prompts(context, dataset, limit)]
    usable = fitting_prompts(policy, prompts, settings.max_new_tokens, context)

    def report(drawn: int, wanted: int) -> None:
        context.progress.check()
        context.progress.report(DRAWING_SHARE * drawn / wanted, f"{drawn} of {wanted} replies drawn")

    log_drawing(policy, _sampling(policy, settings), context.progress.log)
    selection = select_best(policy, scorer, usable, settings, report, context.progress.log)
    context.progress.log(
        f"{len(selection.kept)} replies are imitated; they score {selection.kept_score:.3f} on average, "
        f"all that were drawn {selection.mean_score:.3f}"
    )
    if not settings.dry_run:
        _write(path, selection)
    return selection


def _write(path: Path, selection: Selection) -> None:
    rows = [
        {"messages": [m.model_dump(mode="json") for m in one.messages], "reply": one.reply, "score": one.score}
        for one in selection.kept
    ]
    text = json.dumps({"kept": rows, "mean_score": selection.mean_score, "kept_score": selection.kept_score})
    with atomic_write(path) as file:
        file.write(text.encode())


def _read(path: Path) -> Selection:
    said = json.loads(path.read_text())
    kept = [
        Kept(tuple(Message.model_validate(m) for m in row["messages"]), row["reply"], row["score"])
        for row in said["kept"]
    ]
    return Selection(kept, said["mean_score"], said["kept_score"])


class _SecondHalf(Relay):
    """Reports training as what remains of the run after the replies were drawn."""

    def report(self, fraction: float, text: str) -> None:
        super().report(DRAWING_SHARE + (1 - DRAWING_SHARE) * fraction, text)
