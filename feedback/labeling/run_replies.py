"""A run's replies go back to the people: those it drew while it learnt are put together and wait to be judged.

A reply of the run meets an earlier one of the same run to the same prompt, so that people see what the learning did;
where there is none, it meets another policy's reply. No reply is sent twice.
"""

from __future__ import annotations

import random

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotEnoughData
from feedback.rules.pairing import looks_alike
from feedback.store.content.generations import list_generations
from feedback.store.content.prompts import list_prompts
from feedback.store.labeling.matchups import list_matched, save_matchups
from feedback.store.models.runs import get_run
from feedback.tables import GenerationRow, MatchupRow
from feedback.types import Matchup

USUAL_LIMIT = 50
PRIORITY = 1  # somebody asked for them: they come before what fills the pool, and a promotion leaves them there


def send_to_annotators(
    db: Database, run_id: str, *, limit: int = USUAL_LIMIT, required: int = 1, rng: random.Random | None = None
) -> list[MatchupRow]:
    """Put up to ``limit`` pairs with replies of a run into the pool, its latest replies first.

    Those to retired prompts are passed over. Raises NotEnoughData when the run kept no replies, or none that is not in
    the pool already.
    """
    if limit < 1:
        raise InvalidInput(f"limit must be at least 1, not {limit}.")
    rng = rng or random.Random()
    run = get_run(db, run_id)
    drawn = sorted(list_generations(db, run_id=run.id), key=_iteration)
    if not drawn:
        raise NotEnoughData(
            f"The run {run.id} ({run.method}) has kept no replies to judge; runs of ppo and generate keep theirs."
        )
    by_prompt: dict[str, list[GenerationRow]] = {}
    for row in drawn:
        by_prompt.setdefault(row.prompt_id, []).append(row)
    sent = list_matched(db, list(by_prompt))
    for prompt in list_prompts(db, ids=list(by_prompt), retired=True):
        del by_prompt[prompt.id]
    latest = sorted(by_prompt.values(), key=lambda own: _iteration(own[-1]), reverse=True)
    matchups: list[Matchup] = []
    for own in latest:
        if len(matchups) == limit:
            break
        pair = _pair(db, own, sent)
        if pair is not None:
            rng.shuffle(pair)
            matchups.append(
                Matchup(prompt_id=own[0].prompt_id, generation_ids=pair, required=required, priority=PRIORITY)
            )
    if not matchups:
        raise NotEnoughData(
            f"All that people could compare of the run {run.id} has been sent to them before, or belongs to retired "
            "prompts."
        )
    return save_matchups(db, matchups)


def _pair(db: Database, own: list[GenerationRow], sent: set[str]) -> list[str] | None:
    """The latest unsent reply and the earliest that reads differently, of this run or else of any policy."""
    newest = next((row for row in reversed(own) if row.id not in sent), None)
    if newest is None:
        return None
    others = [*own, *list_generations(db, prompt_id=newest.prompt_id)]
    other = next((row for row in others if row.id not in sent and not looks_alike(row.text, newest.text)), None)
    return None if other is None else [newest.id, other.id]


def _iteration(row: GenerationRow) -> int:
    return int(row.sampling.get("iteration", 0))
