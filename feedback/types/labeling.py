"""Matchups, judgments and what surrounds them: drafts, guidelines, checks, batches, reviews."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator
from sqlmodel import SQLModel

from feedback.types.validation import reject_unstorable_text, reject_unstorable_values, usable_name

MAX_MATCHUP_SIZE = 9
MAX_PRIORITY = 1000
"""Runs and batches have a priority between minus this and this."""


class Source(StrEnum):
    """Who is behind a judgment. ``simulated`` marks an oracle and is never removed."""

    human = "human"
    simulated = "simulated"
    imported = "imported"


class MatchupKind(StrEnum):
    pair = "pair"
    rank = "rank"


class MatchupState(StrEnum):
    """``disputed``: all the opinions it may have are in and no answer has most of them; a reviewer decides."""

    open = "open"
    satisfied = "satisfied"
    disputed = "disputed"
    adjudicated = "adjudicated"
    retired = "retired"


class Purpose(StrEnum):
    """What the judgments of a matchup are for. ``collect`` becomes training data.

    ``gold`` has a known answer and is put before everybody; ``repeat`` shows a person a pair of their own again,
    sides swapped. Neither differs from the others in anything an annotator is sent. ``playground`` holds what a
    researcher chose while trying policies out: nobody else is asked, and a dataset takes it only on request.
    """

    collect = "collect"
    evaluate = "evaluate"
    gold = "gold"
    repeat = "repeat"
    playground = "playground"


WORK_PURPOSES = (Purpose.collect, Purpose.evaluate)
"""Purposes whose judgments are results; the others check the annotators."""


class Part(StrEnum):
    """In which part a person judges: as one of the annotators, or as the adjudicator who settles a dispute."""

    annotator = "annotator"
    adjudicator = "adjudicator"


class Act(StrEnum):
    """What a reviewer did about a judgment, a matchup or a person; each is a row that is never overwritten."""

    exclude = "exclude"
    restore = "restore"
    requeue = "requeue"
    message = "message"


class Verdict(StrEnum):
    """A judgment of a pair in stored order; ``skip`` says nothing about quality and counts nowhere."""

    first = "first"
    second = "second"
    tie = "tie"
    both_bad = "both_bad"
    skip = "skip"


class ShownVerdict(StrEnum):
    """A judgment of a pair as the screen showed it; the server alone maps it to ``Verdict``."""

    left = "left"
    right = "right"
    tie = "tie"
    both_bad = "both_bad"


class LeaseState(StrEnum):
    leased = "leased"
    submitted = "submitted"
    skipped = "skipped"
    released = "released"
    expired = "expired"


class JudgmentState(StrEnum):
    current = "current"
    superseded = "superseded"
    withdrawn = "withdrawn"
    excluded = "excluded"


FOR_PEOPLE = "@people"
"""What a matchup is reserved for that no rule may judge; no person's name begins with an at sign."""


class Matchup(SQLModel):
    """k generations of one prompt put before people; ``generation_ids`` is the stored order.

    ``required`` judgments are asked for; while they give no answer most of the votes, one more is, up to
    ``max_required`` (0: never more). ``gold`` is the known answer of a gold matchup, ``repeat_of`` the matchup that a
    repeat shows again, ``reserved_for`` the one person or rule it is for, or ``FOR_PEOPLE``.
    """

    prompt_id: str
    generation_ids: list[str]
    kind: MatchupKind = MatchupKind.pair
    state: MatchupState = MatchupState.open
    required: int = 1
    priority: int = 0
    purpose: Purpose = Purpose.collect
    max_required: int = 0
    gold: dict[str, Any] | None = None
    repeat_of: str | None = None
    reserved_for: str | None = None
    batch_id: str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Matchup:
        size = len(self.generation_ids)
        if not 2 <= size <= MAX_MATCHUP_SIZE:
            raise ValueError(f"a matchup holds 2 to {MAX_MATCHUP_SIZE} generations, not {size}")
        if len(set(self.generation_ids)) != size:
            raise ValueError("a matchup must not hold the same generation twice")
        if self.kind is MatchupKind.pair and size != 2:
            raise ValueError(f"a pair holds 2 generations, not {size}")
        if self.required < 1:
            raise ValueError(f"a matchup needs at least 1 judgment, not {self.required}")
        if self.max_required and self.max_required < self.required:
            raise ValueError(f"max_required must be 0 or at least {self.required} (required), not {self.max_required}")
        if (self.purpose is Purpose.gold) != (self.gold is not None):
            raise ValueError("a gold matchup, and no other, carries its known answer in gold")
        if self.gold is not None:
            _known_answer(self.gold, self.kind, size)
        return self


class Judgment(SQLModel):
    """What one annotator said of one matchup, in stored order.

    A pair carries ``verdict``; a ranking carries ``ranking``, one rank per generation in stored order
    (1 = best, equal numbers tie). ``strength`` is 1 (slightly) to 3 (much better). ``shown_order`` holds the
    stored index shown at each place of the screen, left to right. What stands from ``edited`` on are the judge's
    remarks, see ``feedback.rules.annotations``; ``active_ms`` is the time spent on it, idle time left out, and
    ``guidelines`` the version that was on the screen (0 = the product's own words). ``origin`` is what the file that an
    imported vote came from says of it beyond these fields.
    """

    matchup_id: str
    lease_id: str
    annotator: str
    source: Source = Source.human
    verdict: Verdict | None = None
    ranking: list[int] | None = None
    strength: int | None = None
    shown_order: list[int] = []
    skip_reason: str | None = None
    rationale: str | None = None
    edited: dict[str, Any] | None = None
    spans: list[dict[str, Any]] | None = None
    criteria: dict[str, list[int | None]] | None = None
    flag: str | None = None
    active_ms: int | None = None
    guidelines: int | None = None
    origin: dict[str, Any] | None = None
    revision: int = 1
    supersedes: str | None = None
    state: JudgmentState = JudgmentState.current
    part: Part = Part.annotator

    @model_validator(mode="after")
    def _says_one_thing(self) -> Judgment:
        if (self.verdict is None) == (self.ranking is None):
            raise ValueError("a judgment is either a verdict or a ranking")
        if self.strength is not None and self.strength not in (1, 2, 3):
            raise ValueError(f"strength must be 1, 2 or 3, not {self.strength}")
        for name in ("annotator", "skip_reason", "rationale", "flag"):
            reject_unstorable_text(getattr(self, name) or "", name)
        reject_unstorable_text(str((self.edited or {}).get("text") or ""), "the edited text")
        reject_unstorable_values(self.spans, "a mark")
        reject_unstorable_values(self.criteria, "a criterion")
        reject_unstorable_values(self.origin, "origin")
        if self.strength is not None and self.verdict is None:
            raise ValueError("strength has no meaning with a ranking")
        if self.strength is not None and self.verdict in (Verdict.tie, Verdict.both_bad, Verdict.skip):
            raise ValueError(f"strength has no meaning with the verdict {self.verdict.value!r}")
        return self


class Draft(SQLModel):
    """What a person has typed or set about a matchup and not yet submitted, in stored order."""

    matchup_id: str
    annotator: str
    content: dict[str, Any] = {}

    @field_validator("content")
    @classmethod
    def _storable(cls, content: dict[str, Any]) -> dict[str, Any]:
        reject_unstorable_values(content, "a draft")
        return content


class Guidelines(SQLModel):
    """One version of what a project asks of its annotators; a change is a new version.

    ``criteria`` are the qualities each reply may be rated on, 1 to 5; ``asks_rationale`` shows the field for a
    reason with every pair. Neither ever holds a vote back.
    """

    text: str
    criteria: list[str] = []
    asks_rationale: bool = False
    author: str = ""

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("guidelines must not be empty")
        if len(text) > 50_000:
            raise ValueError(f"guidelines may have 50000 characters, not {len(text)}")
        return reject_unstorable_text(text.strip(), "guidelines")

    @field_validator("criteria")
    @classmethod
    def _few_and_distinct(cls, criteria: list[str]) -> list[str]:
        names = [name.strip() for name in criteria if name.strip()]
        if len(names) > 8 or len(set(names)) != len(names) or any(len(name) > 60 for name in names):
            raise ValueError("criteria are at most 8 different names of at most 60 characters")
        return [reject_unstorable_text(name, "a criterion") for name in names]


class Checks(SQLModel):
    """How often a person is given a check in place of the next task, in versions as the guidelines are.

    ``gold_share`` of the tasks have a known answer, where there is any; ``repeat_share`` show a person one of their
    own again, sides swapped, ``repeat_after`` seconds later at the earliest. 0 switches a kind off. Gold should look
    like any other task and be certain (arXiv 2505.19134); two to five in a hundred repeats tell how steady a person
    is (arXiv 2502.06387).
    """

    gold_share: float = 0.05
    repeat_share: float = 0.03
    repeat_after: float = 60 * 60
    author: str = ""

    @field_validator("gold_share", "repeat_share")
    @classmethod
    def _is_a_minor_share(cls, share: float, info: ValidationInfo) -> float:
        if not 0.0 <= share <= 0.5:
            raise ValueError(f"{info.field_name} must be between 0 (off) and 0.5, not {share:g}")
        return share

    @field_validator("repeat_after")
    @classmethod
    def _is_a_delay(cls, seconds: float) -> float:
        if not 0 <= seconds <= 30 * 86_400:
            raise ValueError(f"repeat_after must be 0 to {30 * 86_400} seconds (30 days), not {seconds:g}")
        return seconds


class Batch(SQLModel):
    """A named part of the pool that shares purpose, priority, opinions for each matchup, and who judges.

    ``reserved_for`` is the one person or rule that its matchups are for, or ``FOR_PEOPLE``; None: whoever comes.
    """

    name: str
    purpose: Purpose = Purpose.collect
    priority: int = 0
    required: int = 1
    max_required: int = 0
    note: str = ""
    reserved_for: str | None = None

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "batch")

    @model_validator(mode="after")
    def _ranges(self) -> Batch:
        if self.purpose not in (Purpose.collect, Purpose.evaluate):
            raise ValueError(f"a batch collects or evaluates; {self.purpose.value!r} matchups are made by themselves")
        if not 1 <= self.required <= 100:
            raise ValueError(f"required must be between 1 and 100, not {self.required}")
        if self.max_required and not self.required <= self.max_required <= 100:
            raise ValueError(f"max_required must be 0 or between {self.required} and 100, not {self.max_required}")
        reject_unstorable_text(self.note, "a note")
        return self


class Review(SQLModel):
    """One act of a reviewer, with its reason: exclude or restore a judgment, requeue a matchup, message a person."""

    act: Act
    actor: str
    reason: str
    judgment_id: str | None = None
    matchup_id: str | None = None
    annotator: str | None = None

    @field_validator("reason")
    @classmethod
    def _said(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("a reason is needed: whoever reads this later must understand it")
        if len(reason) > 2_000:
            raise ValueError(f"a reason may have 2000 characters, not {len(reason)}")
        return reject_unstorable_text(reason.strip(), "a reason")


def _known_answer(gold: dict[str, Any], kind: MatchupKind, size: int) -> None:
    """Raise ValueError unless ``gold`` is an answer in stored order that this kind of matchup can have."""
    if kind is MatchupKind.pair:
        if set(gold) != {"verdict"} or gold["verdict"] not in (Verdict.first, Verdict.second, Verdict.tie):
            raise ValueError(f'the gold of a pair is {{"verdict": "first", "second" or "tie"}}, not {gold}')
    elif set(gold) != {"ranking"} or not isinstance(gold["ranking"], list) or len(gold["ranking"]) != size:
        raise ValueError(f'the gold of a ranking is {{"ranking": [{size} ranks in stored order]}}, not {gold}')
