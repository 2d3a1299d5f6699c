"""Evaluation as a run: loads what is compared, measures, and saves the scorecard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from feedback.errors import InvalidInput, NotEnoughData
from feedback.tables import CheckpointRow
from feedback.types import Scorecard, Split
from training.models.chat import Messages
from training.reporting.reporter import RunContext
from training.settings.evaluate import EvaluateSettings

if TYPE_CHECKING:
    from training.generation.sampling import Replier


def run(context: RunContext) -> dict[str, Any]:
    """Measure what the settings ask for; the result holds the figures and the scorecard's id."""
    settings: EvaluateSettings = context.settings
    return _policies(context, settings) if settings.a is not None else _reward(context, settings)


def _policies(context: RunContext, settings: EvaluateSettings) -> dict[str, Any]:
    from feedback.store.models.checkpoints import get_checkpoint
    from feedback.store.models.policies import get_champion, get_policy
    from training.evaluation.gate_evidence import decide_policy
    from training.evaluation.win_rate import compare_policies
    from training.generation.sampling import log_unfinished
    from training.rewards.oracles import get_oracle
    from training.rewards.scorers import open_picker

    a, b = get_policy(context.db, str(settings.a)), get_policy(context.db, str(settings.b))
    prompts = _evaluation_prompts(context, settings)
    oracle = get_oracle(settings.oracle or f"reward:{settings.reward}", db=context.db, home=context.home)
    first, second = _open_to_draw(context, settings, a.id), _open_to_draw(context, settings, b.id)
    context, settings = _resolved(context, settings, second)
    figures = compare_policies(
        first,
        second,
        oracle,
        prompts,
        samples=settings.samples,
        sampling=settings.sampling(),
        seed=settings.seed,
        noise=settings.noise,
        batch_size=settings.batch_size,
        on_progress=_reporter(context),
        best_of=settings.best_of,
        picker=open_picker(context.db, context.home, settings.picker) if settings.picker else None,
    )
    unfinished, drawn = figures.get("unfinished", 0), 2 * settings.samples * figures["n_prompts"]
    log_unfinished(unfinished, drawn - unfinished, settings.sampling(), context.progress.log)
    checkpoint = get_checkpoint(context.db, a.checkpoint_id) if a.checkpoint_id else None
    saved = _saved(context, "win_rate", a.id, b.id, figures, checkpoint)
    champion = get_champion(context.db)
    if settings.best_of > 1 or a.id == b.id or champion is None or champion.id != b.id:
        return saved  # says nothing of whether the policy itself should serve
    return {**saved, "gate": decide_policy(context.db, a.id, b.id).as_json()}


def _reward(context: RunContext, settings: EvaluateSettings) -> dict[str, Any]:
    from feedback.store.models.checkpoints import get_checkpoint
    from feedback.store.models.policies import get_champion
    from training.checkpoints.opening import open_reward
    from training.evaluation.reward_accuracy import measure_reward
    from training.rewards.oracles import get_oracle

    checkpoint = get_checkpoint(context.db, str(settings.reward))
    champion = get_champion(context.db)
    if champion is None:
        raise InvalidInput("There is no champion to draw fresh pairs from: promote a policy first.")
    drawn = _open_to_draw(context, settings, champion.id)
    context, settings = _resolved(context, settings, drawn)
    figures = measure_reward(
        open_reward(context.db, context.home, checkpoint.id),
        drawn,
        get_oracle(str(settings.oracle), db=context.db, home=context.home),
        _evaluation_prompts(context, settings),
        samples=settings.samples,
        sampling=settings.sampling(),
        seed=settings.seed,
        noise=settings.noise,
        batch_size=settings.batch_size,
        on_progress=_reporter(context),
    )
    return _saved(context, "reward_accuracy", checkpoint.id, None, figures, checkpoint)


def _open_to_draw(context: RunContext, settings: EvaluateSettings, policy_id: str) -> Replier:
    from training.checkpoints.opening import open_replier
    from training.generation.sampling import use_half

    replier = open_replier(context.db, context.home, policy_id)
    if settings.precision == "auto":
        use_half(replier, context.progress.log)
    return replier


def _resolved(context: RunContext, settings: EvaluateSettings, replier: Replier) -> tuple[RunContext, EvaluateSettings]:
    """The settings with a model's own sampling for what they leave out: the scorecard keeps what was really used."""
    from training.generation.own_sampling import own_sampling
    from training.generation.sampling import log_drawing

    settings = settings.resolved(own_sampling(replier))
    log_drawing(replier, settings.sampling(), context.progress.log)
    return replace(context, settings=settings), settings


def _evaluation_prompts(context: RunContext, settings: EvaluateSettings) -> list[Messages]:
    from feedback.store.content.prompts import list_prompts

    rows = list_prompts(context.db, split=Split.evaluation, limit=settings.prompts)
    if len(rows) < 2:
        raise NotEnoughData(
            f"There are {len(rows)} evaluation prompts; at least 2 are needed. Import some with the split 'evaluation'."
        )
    return [row.messages for row in rows]


def _reporter(context: RunContext) -> Any:
    def on_progress(fraction: float, text: str) -> None:
        context.progress.check()
        context.progress.report(fraction, text)

    return on_progress


def _saved(
    context: RunContext,
    kind: Literal["win_rate", "reward_accuracy"],
    subject_id: str,
    against_id: str | None,
    figures: dict[str, Any],
    measured: CheckpointRow | None,
) -> dict[str, Any]:
    from feedback.store.models.scorecards import save_scorecard
    from training.checkpoints.manifest import note_scorecard

    card = save_scorecard(
        context.db,
        Scorecard(
            kind=kind,
            subject_id=subject_id,
            against_id=against_id,
            run_id=context.run.id,
            settings=context.settings.model_dump(mode="json"),
            figures=figures,
        ),
    )
    if measured is not None:
        kept = {"id", "kind", "against_id", "settings", "figures", "created_at"}
        note_scorecard(context.home.path / measured.path, card.model_dump(mode="json", include=kept))
    return {"scorecard": card.id, **figures}
