"""How good the judgments are: one report over all of them and one line per annotator, with what stands out named.

The report is for reviewers and researchers. Nothing of it may reach an annotator: it tells gold from other tasks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback.database.engine import Database
from feedback.quality import agreement, annotator_model
from feedback.quality.agreement import GoldVerdict, Measure, undefined
from feedback.quality.annotator_model import Skill
from feedback.quality.ballots import Ballot, ballots_of
from feedback.store.reports.opinions import Opinion, list_opinions
from feedback.types import WORK_PURPOSES, Part, Purpose, Source, Verdict

HASTY = 0.2
"""Share of answers given sooner than the replies can be read, above which (surely) a person is called hasty."""


@dataclass(frozen=True)
class AnnotatorQuality:
    """One annotator. ``flags`` are what a reviewer should look at, in words, worst first."""

    name: str
    source: Source
    judgments: int
    skips: int
    accuracy: Measure
    left: Measure
    longer: Measure
    left_share: Measure
    longer_share: Measure
    consistency: Measure
    gold: Measure
    gold_verdict: GoldVerdict
    hasty: Measure
    seconds: Measure
    flags: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The line for REST and the command."""
        measures = {
            name: getattr(self, name).as_json()
            for name in (
                "accuracy", "left", "longer", "left_share", "longer_share", "consistency", "gold", "hasty", "seconds",
            )
        }  # fmt: skip
        return {
            "annotator": self.name,
            "source": self.source.value,
            "judgments": self.judgments,
            "skips": self.skips,
            "gold_verdict": self.gold_verdict,
            "flags": list(self.flags),
            **measures,
        }


@dataclass(frozen=True)
class QualityReport:
    """All judgments together. ``ceiling`` is how often a perfect reward model would agree with one annotator."""

    judgments: int
    matchups: int
    agreement: Measure
    alpha: Measure
    ceiling: Measure
    annotators: tuple[AnnotatorQuality, ...]
    shared: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report for REST and the command; ``shared`` lists people with how many pairs they share and agree on."""
        return {
            "judgments": self.judgments,
            "matchups": self.matchups,
            "agreement": self.agreement.as_json(),
            "alpha": self.alpha.as_json(),
            "ceiling": self.ceiling.as_json(),
            "annotators": [line.as_json() for line in self.annotators],
            "shared": [
                {"annotators": list(names), "matchups": shared, "same": same}
                for names, (shared, same) in self.shared.items()
            ],
        }


def report(db: Database, sources: Iterable[Source] = tuple(Source)) -> QualityReport:
    """The quality of all current judgments of these sources."""
    return report_of(list_opinions(db, sources=sources))


def report_of(opinions: Sequence[Opinion]) -> QualityReport:
    """The report over opinions in the order they were given; adjudications settle matchups and are not measured."""
    judged = [one for one in opinions if one.part is Part.annotator and one.purpose is not Purpose.playground]
    ballots = {purpose: ballots_of(o for o in judged if o.purpose is purpose) for purpose in Purpose}
    work = [ballot for purpose in WORK_PURPOSES for ballot in ballots[purpose]]
    # A repeat would count its person's error twice, so the model does not see it.
    skills = annotator_model.fit([*work, *ballots[Purpose.gold]]).skills
    by_person: dict[str, list[Opinion]] = defaultdict(list)
    for opinion in judged:
        by_person[opinion.annotator].append(opinion)
    lines = [_line(own, ballots, skills.get(name), len(by_person)) for name, own in by_person.items()]
    raw = agreement.raw_agreement(work)
    return QualityReport(
        judgments=sum(opinion.verdict is not Verdict.skip for opinion in judged),
        matchups=len({ballot.unit[0] for ballot in work}),
        agreement=raw,
        alpha=agreement.krippendorff_alpha(work),
        ceiling=ceiling(raw),
        annotators=tuple(sorted(lines, key=_worst_first)),
        shared=agreement.pairwise_agreement(work),
    )


def ceiling(raw: Measure) -> Measure:
    """The accuracy of one annotator that this agreement implies: a = (1 + sqrt(2p - 1)) / 2 for a binary choice.

    Two people who are right with probability a, independently, agree with p = 2a² - 2a + 1.
    """
    if raw.value is None:
        return raw
    if raw.value < 0.5:
        return undefined("People agree less than a coin would, so no common truth is implied.", raw.n)

    def implied(p: float | None) -> float | None:
        return None if p is None else (1 + math.sqrt(max(0.0, 2 * p - 1))) / 2

    return Measure(implied(raw.value), implied(raw.low), implied(raw.high), raw.n)


def _line(
    opinions: Sequence[Opinion], ballots: dict[Purpose, list[Ballot]], skill: Skill | None, people: int
) -> AnnotatorQuality:
    name = opinions[0].annotator
    own = {purpose: [ballot for ballot in some if ballot.annotator == name] for purpose, some in ballots.items()}
    work = [ballot for purpose in WORK_PURPOSES for ballot in own[purpose]]
    known = [ballot for ballot in own[Purpose.gold] if ballot.truth is not None]
    skill = skill or _unknown()
    verdict = agreement.gold_test([ballot.choice == ballot.truth for ballot in known])
    reads = opinions[0].source is Source.human
    hasty = agreement.hasty_share(opinions) if reads else undefined("A simulated or imported judge has no pace.")
    sides = agreement.left_share([*work, *own[Purpose.gold], *own[Purpose.repeat]])
    return AnnotatorQuality(
        name=name,
        source=opinions[0].source,
        judgments=sum(opinion.verdict is not Verdict.skip for opinion in opinions),
        skips=sum(opinion.verdict is Verdict.skip for opinion in opinions),
        accuracy=skill.accuracy,
        left=skill.left,
        longer=skill.longer,
        left_share=sides,
        longer_share=agreement.longer_share(work),
        consistency=agreement.self_consistency(work, own[Purpose.repeat]),
        gold=agreement.gold_accuracy(known),
        gold_verdict=verdict,
        hasty=hasty,
        seconds=agreement.median_seconds(opinions) if reads else hasty,
        flags=tuple(_flags(skill, verdict, hasty, sides, people)),
    )


def _unknown() -> Skill:
    nothing = undefined("This person has not preferred one reply to another yet.")
    return Skill(nothing, nothing, nothing)


def _flags(skill: Skill, verdict: GoldVerdict, hasty: Measure, sides: Measure, people: int) -> Iterable[str]:
    lopsided = agreement.is_lopsided(sides, people)
    if skill.leans_left > 0 or (lopsided and (sides.value or 0) > 0.5):
        yield "prefers the left side"
    elif skill.leans_left < 0 or lopsided:
        yield "prefers the right side"
    if skill.leans_longer:
        yield "prefers longer replies" if skill.leans_longer > 0 else "prefers shorter replies"
    if verdict == "doubtful":
        yield "fails gold"
    if skill.accuracy.high is not None and skill.accuracy.high < 0.7:
        yield "no better than a coin"
    if hasty.low is not None and hasty.low > HASTY:
        yield "too fast to have read"


def _worst_first(line: AnnotatorQuality) -> tuple[float, str]:
    return (1.0 if line.accuracy.value is None else line.accuracy.value, line.name)
