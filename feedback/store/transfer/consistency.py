"""Does a judgment that comes from elsewhere hold together with its lease, its matchup and the replies it is about?

Each row may be right by itself and the whole still say nothing: a ranking of three for a pair, an edit of a ninth
reply. What is judged here is looked at whole by ``feedback.labeling.judging``, in shown order; this looks at
stored order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedback.errors import InvalidInput
from feedback.rules.annotations import to_stored
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow, PromptRow
from feedback.types import MatchupKind, Verdict

_OF_A_RANKING = (Verdict.both_bad, Verdict.skip)


@dataclass(frozen=True)
class JudgmentRows:
    """A judgment and everything it refers to, as rows."""

    judgment: JudgmentRow
    lease: LeaseRow
    matchup: MatchupRow
    prompt: PromptRow
    generations: list[GenerationRow]


def check_coherent(rows: JudgmentRows) -> None:
    """Raise InvalidInput with the first thing that one row says and another contradicts."""
    _check_references(rows)
    judgment, matchup = rows.judgment, rows.matchup
    texts = {reply.id: reply.text for reply in rows.generations}
    unknown = [key for key in matchup.generation_ids if key not in texts]
    if unknown:
        known = ", ".join(texts) or "none"
        raise InvalidInput(f"matchup.generation_ids names {unknown[0]!r}, which is not among the generations ({known})")
    _check_answer(judgment, matchup)
    for noun, order in (("judgment", judgment.shown_order), ("lease", rows.lease.shown_order)):
        _check_order(noun, order, len(matchup.generation_ids))
    remarks = {name: getattr(judgment, name) for name in ("edited", "spans", "criteria")}
    in_order = [texts[key] for key in matchup.generation_ids]
    to_stored(remarks, range(len(in_order)), in_order)


def _check_references(rows: JudgmentRows) -> None:
    judgment, lease, matchup, prompt = rows.judgment, rows.lease, rows.matchup, rows.prompt
    agreeing = [
        ("judgment.matchup_id", judgment.matchup_id, matchup.id),
        ("judgment.lease_id", judgment.lease_id, lease.id),
        ("lease.matchup_id", lease.matchup_id, matchup.id),
        ("lease.annotator", lease.annotator, judgment.annotator),
        ("matchup.prompt_id", matchup.prompt_id, prompt.id),
        *((f"generations.{i}.prompt_id", reply.prompt_id, prompt.id) for i, reply in enumerate(rows.generations)),
    ]
    for name, said, meant in agreeing:
        if said != meant:
            raise InvalidInput(f"{name} must be {meant!r}, as in the rest of the line, not {said!r}")


def _check_answer(judgment: JudgmentRow, matchup: MatchupRow) -> None:
    size, ranking = len(matchup.generation_ids), judgment.ranking
    if ranking is None:
        if matchup.kind is not MatchupKind.pair and judgment.verdict not in _OF_A_RANKING:
            raise InvalidInput(f"judgment.verdict {judgment.verdict!s} is of a pair; the matchup ranks {size} replies")
        return
    # Two replies may be ranked too: that is how some scripts judge a pair.
    if len(ranking) != size:
        raise InvalidInput(f"judgment.ranking needs {size} numbers, one per reply, not {len(ranking)}")
    if not all(1 <= rank <= size for rank in ranking):
        raise InvalidInput(f"judgment.ranking goes from 1 (best) to {size}, equal numbers tie; {ranking} does not")


def _check_order(noun: str, order: Sequence[int], size: int) -> None:
    # A judgment may leave out how it was shown; what it says is in stored order anyway.
    if not (order == [] and noun == "judgment") and sorted(order) != list(range(size)):
        raise InvalidInput(f"{noun}.shown_order holds each of 0 to {size - 1} once, not {list(order)}")
