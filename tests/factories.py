"""Rows with sensible defaults, written through the store: what tests build their worlds from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from feedback.database.engine import Database
from feedback.labeling import assignment, judging
from feedback.rules import pairing
from feedback.store.content import generations, prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.store.models.benchmarks import save_benchmark
from feedback.tables import BenchmarkRow, GenerationRow, MatchupRow, PolicyRow, PromptRow
from feedback.types import Generation, Policy, Prompt, ShownVerdict, Source, Split

_numbers = itertools.count(1)


def make_policy(db: Database, name: str | None = None, **fields: Any) -> PolicyRow:
    return policies.save_policy(db, Policy(name=name or f"policy-{next(_numbers)}", base="starter", **fields))


def make_prompt(db: Database, text: str | None = None, split: Split = Split.work) -> PromptRow:
    content = text or f"Tell me about thing number {next(_numbers)}."
    saved = prompts.save_prompts(db, [Prompt(messages=[{"role": "user", "content": content}], split=split)])
    return prompts.get_prompt(db, saved.ids[0])


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
) -> MatchupRow:
    policy = policy or make_policy(db)
    prompt = prompt or make_prompt(db)
    number = next(_numbers)
    rows = make_generations(
        db, prompt, policy, texts or [f"Reply {number} a.", f"Reply {number} b, a longer one."], cut
    )
    return matchups.save_matchups(db, pairing.make_pairs(rows, random.Random(number), required=required))[0]


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
