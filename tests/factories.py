"""Rows with sensible defaults, written through the store: what tests build their worlds from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.labeling import assignment, judging
from feedback.rules import pairing
from feedback.store.content import generations, prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.store.models.benchmarks import save_benchmark
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import (
    BatchRow,
    BenchmarkRow,
    DatasetJudgmentRow,
    GenerationRow,
    JudgmentRow,
    LeaseRow,
    MatchupRow,
    PolicyRow,
    PromptRow,
    ScorecardRow,
)
from feedback.types import (
    Generation,
    JudgmentState,
    Matchup,
    Policy,
    Prompt,
    Purpose,
    SamplingSettings,
    Scorecard,
    ShownVerdict,
    Source,
    Split,
)

if TYPE_CHECKING:
    from feedback.labeling.assignment import Task
    from studio.services.facade import Services

_numbers = itertools.count(1)


def make_policy(db: Database, name: str | None = None, *, base: str = "starter", **fields: Any) -> PolicyRow:
    return policies.save_policy(db, Policy(name=name or f"policy-{next(_numbers)}", base=base, **fields))


def make_prompt(db: Database, text: str | None = None, split: Split = Split.work) -> PromptRow:
    content = text or f"Tell me about thing number {next(_numbers)}."
    saved = prompts.save_prompts(db, [Prompt(messages=[{"role": "user", "content": content}], split=split)])
    return get_prompt(db, saved.ids[0])


def get_prompt(db: Database, prompt_id: str) -> PromptRow:
    with db.read() as session:
        return session.get_one(PromptRow, prompt_id)


def get_generation(db: Database, generation_id: str) -> GenerationRow:
    with db.read() as session:
        return session.get_one(GenerationRow, generation_id)


def replies_of_lease(db: Database, lease_id: str) -> list[GenerationRow]:
    """The replies a lease is about, in stored order."""
    with db.read() as session:
        matchup = session.get_one(MatchupRow, session.get_one(LeaseRow, lease_id).matchup_id)
        return [session.get_one(GenerationRow, generation_id) for generation_id in matchup.generation_ids]


def make_generations(
    db: Database, prompt: PromptRow, policy: PolicyRow, texts: list[str], cut: Sequence[bool] = ()
) -> list[GenerationRow]:
    values = [
        Generation(
            prompt_id=prompt.id,
            policy_id=policy.id,
            text=text,
            seed=index,
            tokens=len(text.split()),
            finish_reason="length" if cut and cut[index] else "stop",
        )
        for index, text in enumerate(texts)
    ]
    return generations.save_generations(db, values)


def make_matchup(
    db: Database,
    *,
    policy: PolicyRow | None = None,
    prompt: PromptRow | None = None,
    texts: list[str] | None = None,
    required: int = 1,
    cut: Sequence[bool] = (),
    batch: BatchRow | None = None,
) -> MatchupRow:
    policy = policy or make_policy(db)
    prompt = prompt or make_prompt(db)
    number = next(_numbers)
    rows = make_generations(
        db, prompt, policy, texts or [f"Reply {number} a.", f"Reply {number} b, a longer one."], cut
    )
    (pair,) = pairing.make_pairs(rows, random.Random(number), required=required)
    if batch is not None:
        own = {"batch_id": batch.id, "priority": batch.priority, "reserved_for": batch.reserved_for}
        pair = pair.model_copy(update=own)
    return matchups.save_matchups(db, [pair])[0]


def judge_by(
    db: Database, prefers: Any, *, annotator: str = "ann", count: int | None = None, source: Source = Source.human
) -> int:
    """Judge open matchups by ``prefers(left, right)``: positive for left, negative for right, 0 for a tie."""
    done = 0
    while count is None or done < count:
        task = assignment.lease_next(db, annotator, source=source)
        if task is None:
            break
        sign = prefers(*task.responses)
        verdict = ShownVerdict.tie if sign == 0 else ShownVerdict.left if sign > 0 else ShownVerdict.right
        judging.submit(db, task.lease_id, annotator, verdict=verdict)
        done += 1
    return done


def compare_policies(
    db: Database,
    one: PolicyRow,
    other: PolicyRow,
    wins: int,
    losses: int,
    ties: int = 0,
    *,
    split: Split = Split.evaluation,
    source: Source = Source.human,
) -> None:
    """Have an annotator prefer ``one`` to ``other`` on ``wins`` prompts, and the other way round on ``losses``."""
    for sign in [1] * wins + [-1] * losses + [0] * ties:
        number = next(_numbers)
        prompt = make_prompt(db, f"Compare on {number}.", split=split)
        mine, theirs = (make_generations(db, prompt, row, [f"{row.name} {number}"])[0] for row in (one, other))
        purpose = Purpose.evaluate if source is Source.human else Purpose.collect
        pair = [mine.id, theirs.id] if number % 2 else [theirs.id, mine.id]
        matchups.save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=pair, purpose=purpose)])
        by_text = {mine.text: sign, theirs.text: -sign}
        judge_by(db, lambda left, _, signs=by_text: signs[left], count=1, source=source)


def make_win_rate(
    db: Database, a: PolicyRow, b: PolicyRow, rate: float, *, half: float = 0.05, **figures: Any
) -> ScorecardRow:
    """The scorecard of an evaluation of ``a`` against ``b``; ``oracle``, ``reward`` and ``picker`` are its settings."""
    named = {key: figures.pop(key) for key in ("oracle", "reward", "picker") if key in figures}
    settings = named if {"oracle", "reward"} & set(named) else {**named, "oracle": "shorter"}
    bounds = {"low": max(0.0, rate - half), "high": min(1.0, rate + half)}
    told = {"win_rate": rate, **bounds, "n_prompts": 150, "samples": 2, "ties": 0.1, **figures}
    card = Scorecard(kind="win_rate", subject_id=a.id, against_id=b.id, settings=settings, figures=told)
    return save_scorecard(db, card)


def longer(left: str, right: str) -> int:
    return len(left) - len(right)


def sample(number: int, score: float, **changed: Any) -> dict[str, Any]:
    """One item as lm-evaluation-harness logs it."""
    hashes = {f"{part}_hash": f"{part}-{number}" for part in ("doc", "prompt", "target")}
    asked = {"arguments": [[f"What is {number}?", "this"]], "filtered_resps": [f"It is {score:g}."]}
    return {**hashes, **asked, "filter": "none", "metrics": ["acc"], "acc": score, **changed}


def keep_benchmark(db: Database, policy: str, scores: Sequence[float], task: str = "sums") -> BenchmarkRow:
    """What a policy scored, item by item, on a task that others may take too."""
    from training.evaluation.harness_report import from_report

    logged = [sample(number, score) for number, score in enumerate(scores)]
    return save_benchmark(db, *from_report({}, {task: logged}, policy).results[0])


def draw_again(policy: Any, messages: Any, settings: SamplingSettings, seed: int) -> Any:
    """The reply that was drawn with this seed: policy, prompt, settings and seed name a generation for ever."""
    from training.generation import sampling

    draw = sampling._Draw(0, 0, messages, sampling._encoded(policy, messages, settings), seed)
    with sampling._ready(policy):
        return sampling._draw_all(policy, [draw], settings, 1, lambda drawn: None)[0]


def get_matchup(db: Database, matchup_id: str) -> MatchupRow:
    with db.read() as session:
        return session.get_one(MatchupRow, matchup_id)


def list_judgments(
    db: Database, *, limit: int | None = None, dataset_id: str | None = None, current_only: bool = False
) -> list[JudgmentRow]:
    """Judgments, oldest first: all revisions, or those a dataset was frozen from, or the current ones."""
    query = select(JudgmentRow).order_by(col(JudgmentRow.created_at), col(JudgmentRow.id)).limit(limit)
    if dataset_id is not None:
        members = select(DatasetJudgmentRow.judgment_id).where(DatasetJudgmentRow.dataset_id == dataset_id)
        query = query.where(col(JudgmentRow.id).in_(members))
    if current_only:
        query = query.where(JudgmentRow.state == JudgmentState.current)
    with db.read() as session:
        return list(session.exec(query))


def count_judgments(db: Database, *, annotator: str | None = None, source: Source | None = None) -> int:
    """How many current judgments there are, skips included."""
    rows = list_judgments(db, current_only=True)
    return sum(annotator in (None, row.annotator) and source in (None, row.source) for row in rows)


def current_task(services: Services, session: str) -> Task | None:
    """What a browser session shows: the first of its deck."""
    return next(iter(services.labeling.deck(session, size=1)), None)
