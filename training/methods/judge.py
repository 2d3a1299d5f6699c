"""A rule that judges pairs of the pool in place of people."""

from __future__ import annotations

from typing import Any

from training.reporting.reporter import RunContext
from training.settings.judge import JudgeSettings


def run(context: RunContext) -> dict[str, Any]:
    """Judge; the result counts the judgments and the ties of this attempt, and those of earlier ones in ``before``."""
    from training.rewards.oracle_annotator import annotate, annotator_name

    settings: JudgeSettings = context.settings
    progress = context.progress
    before = _judged_before(context, settings)
    if before >= settings.count:
        return {"annotator": annotator_name(settings.oracle), "judged": 0, "ties": 0, "before": before}

    def judged(number: int) -> None:
        progress.check()
        progress.report((before + number) / settings.count, f"{before + number} of {settings.count} pairs judged")

    session = annotate(
        context.db,
        context.home,
        settings.oracle,
        settings.count - before,
        noise=settings.noise,
        seed=settings.seed + context.run.attempt - 1,  # an earlier attempt's flips are not drawn again
        batch=settings.batch,
        on_progress=judged,
    )
    return {"annotator": session.annotator, "judged": session.judged, "ties": session.ties, "before": before}


def _judged_before(context: RunContext, settings: JudgeSettings) -> int:
    """How many pairs of the batch earlier attempts of this run judged."""
    from feedback.store.labeling.batches import count_opinions, get_batch
    from training.rewards.oracle_annotator import annotator_name

    if context.run.attempt == 1 or settings.batch is None:
        return 0
    batch = get_batch(context.db, settings.batch)
    judge = annotator_name(settings.oracle)
    return count_opinions(context.db, batch.id, since=context.run.created_at, annotator=judge)[0]
