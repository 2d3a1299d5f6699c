"""May a policy serve? PROMOTE, HOLD or REJECT, in words; a pure function of what was measured.

Each question is answered by *passed*, *failed* or *unclear*. One failure rejects; else one unclear answer holds, and
says what would settle it; else the policy may serve. That no benchmark was taken is a note, which decides nothing. A
person promotes whatever they like: the gate says what the figures allow to be said, and ``studio loop`` goes by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from training.evaluation.intervals import wilson
from training.evaluation.paired_tests import LEVEL, Paired

MARGIN = 0.01
_POWERED = (1.959964 + 0.841621) / 1.959964
"""From the half of a 95 % interval to the difference that is found with a power of 80 %."""
_NOTHING = 0.005
_ROUNDING = 1e-9


class GateVerdict(StrEnum):
    """What the gate says of a policy."""

    promote = "PROMOTE"
    hold = "HOLD"
    reject = "REJECT"


class Answer(StrEnum):
    """How a single question was answered; a note answers none."""

    passed = "passed"
    failed = "failed"
    unclear = "unclear"
    note = "note"


@dataclass(frozen=True)
class GateLimits:
    """How far a policy may be off and still serve.

    ``margin`` is how much of a benchmark's score may be lost, in the score's own units (0.01 is one point of a share);
    left out, what the task itself says, else ``MARGIN``. ``ends`` is how much smaller the share of replies may be that
    end by themselves, ``distinct`` what share of their variety must be left, ``longer`` the growth of replies from
    which on a reader is told, and ``kl`` the most nats per reply, if there is a budget.
    """

    margin: float | None = None
    ends: float = 0.1
    distinct: float = 0.5
    longer: float = 1.5
    kl: float | None = None


@dataclass(frozen=True)
class TaskResult:
    """A benchmark that both policies took; ``margin`` is what its author says may be lost."""

    task: str
    compared: Paired
    higher_is_better: bool = True
    margin: float | None = None


@dataclass(frozen=True)
class Reason:
    """One question, its answer and the sentence that says so."""

    question: str
    answer: Answer
    words: str


@dataclass(frozen=True)
class Decision:
    """The verdict with every sentence it rests on, and the limits it was made by."""

    verdict: GateVerdict
    reasons: tuple[Reason, ...]
    limits: GateLimits = field(default_factory=GateLimits)

    def as_json(self) -> dict[str, Any]:
        """The decision as plain JSON."""
        return asdict(self) | {"verdict": self.verdict.value, "reasons": [asdict(reason) for reason in self.reasons]}


def decide(
    figures: Mapping[str, Any] | None,
    *,
    against: str = "the champion",
    judge: str = "",
    judge_taught_it: bool = False,
    people: Mapping[str, Any] | None = None,
    other_judges: Mapping[str, Mapping[str, Any]] | None = None,
    tasks: Sequence[TaskResult] = (),
    unlike: Sequence[str] = (),
    limits: GateLimits | None = None,
) -> Decision:
    """Decide by a win-rate scorecard over the champion and by the benchmarks both took.

    ``figures`` are those of ``training.evaluation.win_rate.compare_policies``, None where nothing was measured yet, and
    ``other_judges`` those by further judges. ``judge_taught_it`` says that the judge is a reward model that this policy
    or one it came of was trained to please. ``people`` are the figures of ``training.evaluation.people.by_people``:
    where they tell, no rule and no reward model is asked, for these stand in for people. ``unlike`` are sentences on
    benchmarks that both took and that cannot be compared.
    """
    limits = limits or GateLimits()
    usable = figures if figures is not None and _is_finite(figures) else None
    reasons = [] if people is None else [_people(people, against)]
    decided = any(reason.answer in (Answer.passed, Answer.failed) for reason in reasons)
    if usable is not None or not reasons:
        measured = _win_rate(usable, against, judge)
        reasons.append(replace(measured, answer=Answer.note) if decided else measured)
    if usable is not None:
        reasons += [] if decided else [*_judge(judge_taught_it), *_agreement(usable, other_judges or {})]
        reasons += [*_ends(usable, limits), *_variety(usable, limits), *_distance(usable, against, limits)]
        reasons += _length(usable, limits)
    reasons += [_task(result, limits, len(tasks)) for result in tasks]
    reasons += [Reason("benchmarks", Answer.unclear, words) for words in unlike]
    reasons += [] if tasks or unlike else [_NO_BENCHMARK]
    return Decision(_verdict({reason.answer for reason in reasons}), tuple(reasons), limits)


def _is_finite(figures: Mapping[str, Any]) -> bool:
    needed = [figures.get(name) for name in ("win_rate", "low", "high", "n_prompts")]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in needed)


def in_words(decision: Mapping[str, Any]) -> list[str]:
    """A decision, as it is kept, in lines: the verdict, then each reason with its answer."""
    return [str(decision["verdict"]), *(f"  {one['answer']}: {one['words']}" for one in decision["reasons"])]


_NO_BENCHMARK = Reason(
    "benchmarks", Answer.note, "No benchmark was taken by both, so nothing is known of what it may have unlearnt."
)


def _verdict(answers: set[Answer]) -> GateVerdict:
    if Answer.failed in answers:
        return GateVerdict.reject
    return GateVerdict.hold if Answer.unclear in answers else GateVerdict.promote


def _win_rate(figures: Mapping[str, Any] | None, against: str, judge: str) -> Reason:
    question = f"preferred over {against}"
    if figures is None:
        words = f"It was never measured against {against}: `studio evaluate` does that."
        return Reason(question, Answer.unclear, words)
    value, low, high, n = (figures[name] for name in ("win_rate", "low", "high", "n_prompts"))
    by = f", judged by {judge}" if judge else ""
    seen = f"{_interval(value, low, high)} of comparisons with {against} on {n:,} held-out prompts{by}"
    if low > 0.5:
        return Reason(question, Answer.passed, f"It wins {seen}.")
    if high < 0.5:
        return Reason(question, Answer.failed, f"It wins only {seen}.")
    return Reason(question, Answer.unclear, f"It wins {seen}: cannot tell. {_prompts_needed(value, low, high, n)}")


def _people(figures: Mapping[str, Any], against: str) -> Reason:
    """What people said, blind. While pairs wait, only what holds however often one looks is an answer.

    An interval read after every judgment excludes one half by chance at some look far more often than in 5 %.
    """
    question, waiting = f"preferred over {against} by people", figures["waiting"]
    begun = _is_finite(figures)
    waits = f" {waiting:,} {'more ' if begun else ''}pair{'s wait' if waiting != 1 else ' waits'} for somebody."
    if not begun:
        return Reason(
            question, Answer.unclear, f"People were asked to compare it with {against} and have not begun.{waits}"
        )
    found = _win_rate(figures, against, "people")
    if not waiting:
        return Reason(question, found.answer, found.words)
    share = _interval(figures["win_rate"], figures["low"], figures["high"])
    on = f"on {figures['n_prompts']:,} held-out prompts, judged by people"
    seen = f"So far it wins {share} of comparisons with {against} {on}.{waits}"
    if figures["evidence"] < 1 / LEVEL:
        return Reason(
            question, Answer.unclear, f"{seen} It is decided when they are judged, or sooner if one leads clearly."
        )
    answer = Answer.passed if figures["win_rate"] > 0.5 else Answer.failed
    odds = f"{_rounded(figures['evidence']):,}"
    return Reason(question, answer, f"{seen} By chance such a lead is ever seen once in {odds} times at most.")


def _prompts_needed(value: float, low: float, high: float, n: int) -> str:
    """What more prompts would show; the detectable distance from one half shrinks with their square root."""
    detectable = min(0.5, (high - low) / 2 * _POWERED)
    if detectable == 0.5:
        return "So few prompts could hardly show anything; ask about more."
    shown = f"from {_percent(0.5 + detectable)} on" if value >= 0.5 else f"up to {_percent(0.5 - detectable)}"
    distance = abs(value - 0.5)
    if distance < _NOTHING:
        return f"So many prompts show a win rate {shown}; the two look alike, and more would hardly show otherwise."
    needed = max(n + 1, n * (detectable / distance) ** 2)
    return f"So many prompts show a win rate {shown}; about {_rounded(needed):,} would show this one."


def _agreement(figures: Mapping[str, Any], other_judges: Mapping[str, Mapping[str, Any]]) -> list[Reason]:
    """One judge may be chosen until one likes the policy; another that surely does not must be heard."""
    against = [
        f"judged by {judge} it wins only {_interval(card['win_rate'], card['low'], card['high'])}"
        for judge, card in other_judges.items()
        if figures["low"] > 0.5 and _is_finite(card) and card["high"] < 0.5
    ]
    if not against:
        return []
    return [Reason("judges agree", Answer.unclear, f"The judges disagree: {'; '.join(against)}. People should decide.")]


def _judge(judge_taught_it: bool) -> list[Reason]:
    if not judge_taught_it:
        return []
    words = (
        "The judge is a reward model that it was trained to please, which says nothing of what people prefer. "
        "Measure it with another judge."
    )
    return [Reason("an independent judge", Answer.unclear, words)]


def _ends(figures: Mapping[str, Any], limits: GateLimits) -> list[Reason]:
    if not _measured(figures, "ended"):
        return []
    before, after = figures["ended_before"], figures["ended_after"]
    words = f"{_percent(after)} of its replies end by themselves; {_percent(before)} did"
    return [_share_kept("replies end", words, after, before - limits.ends, figures["n_prompts"])]


def _variety(figures: Mapping[str, Any], limits: GateLimits) -> list[Reason]:
    if not _measured(figures, "distinct"):
        return []
    before, after = figures["distinct_before"], figures["distinct_after"]
    words = f"{_percent(after)} of its replies are different ones; {_percent(before)} were"
    return [_share_kept("replies differ", words, after, before * limits.distinct, figures["n_prompts"])]


def _share_kept(question: str, words: str, share: float, least: float, prompts: int) -> Reason:
    """A share that must not fall below ``least``; of few replies one that was cut is no proof that it did.

    A prompt counts once, however many replies it was given: those are not independent of each other.
    """
    if share >= least - _ROUNDING:
        return Reason(question, Answer.passed, f"{words}.")
    if wilson(share * prompts, prompts).high < least:
        return Reason(question, Answer.failed, f"{words}.")
    return Reason(question, Answer.unclear, f"{words}: cannot tell on {prompts:,} prompts. Measure it on more.")


def _distance(figures: Mapping[str, Any], against: str, limits: GateLimits) -> list[Reason]:
    if limits.kl is None:
        return []
    question, kl = f"close to {against}", figures.get("kl")
    if kl is None or not math.isfinite(kl):
        words = f"How far it is from {against} could not be measured: other tokens, or replies over HTTP."
        return [Reason(question, Answer.unclear, words)]
    words = f"It is {kl:.1f} nats per reply from {against}; {limits.kl:g} are allowed."
    return [Reason(question, Answer.passed if kl <= limits.kl else Answer.failed, words)]


def _length(figures: Mapping[str, Any], limits: GateLimits) -> list[Reason]:
    if not _measured(figures, "length") or figures["length_after"] <= limits.longer * figures["length_before"]:
        return []
    words = (
        f"Its replies grew from {figures['length_before']:.0f} to {figures['length_after']:.0f} words: "
        "read some, for judges tend to like length."
    )
    return [Reason("length", Answer.note, words)]


def _task(result: TaskResult, limits: GateLimits, tasks: int) -> Reason:
    """Not worse than the champion by more than the margin, on the one side that matters.

    To pass, a policy must pass every task, which needs no adjustment; one of many tasks fails by chance more easily
    than one alone, so that side's level is divided by their number (Bonferroni).
    """
    compared, question = result.compared, f"benchmark {result.task}"
    margin = _margin(result, limits)
    if result.higher_is_better:
        gain, least, most = compared.difference, compared.at_least(), compared.at_most(LEVEL / tasks)
    else:
        gain, least, most = -compared.difference, -compared.at_most(), -compared.at_least(LEVEL / tasks)
    is_share = min(compared.mean_a, compared.mean_b) >= 0 and max(compared.mean_a, compared.mean_b) <= 1
    allowed = _amount(margin, is_share)
    change = f"{'gained' if gain > 0 else 'lost'} {_amount(abs(gain), is_share)}" if gain else "did not change"
    seen = f"{result.task} {change} ({compared.mean_b:.3f} to {compared.mean_a:.3f}, {compared.n:,} items)"
    if least > -margin:
        return Reason(question, Answer.passed, f"{seen}; with 95 % it lost less than {allowed}.")
    if most < -margin:
        return Reason(question, Answer.failed, f"{seen}; with 95 % it lost more than {allowed}.")
    needed = _items_needed(compared, gain + margin)
    return Reason(question, Answer.unclear, f"{seen}: cannot tell whether it lost {allowed}. {needed}")


def _margin(result: TaskResult, limits: GateLimits) -> float:
    if limits.margin is not None:
        return limits.margin
    return MARGIN if result.margin is None else result.margin


def _items_needed(compared: Paired, distance: float) -> str:
    """How many items would tell on which side of the margin the policy is, if it is as far from it as it looks."""
    if abs(distance) < compared.error / 10:
        return "It looks to be just there; more items would hardly tell."
    needed = max(compared.n + 1, compared.items_for(distance))
    return f"About {_rounded(needed):,} items would tell."


def _amount(difference: float, is_share: bool) -> str:
    """A difference as one says it: hundredths of a share are points; any other score is told in its own units."""
    return f"{100 * difference:.1f} points" if is_share else f"{difference:.3g}"


def _measured(figures: Mapping[str, Any], name: str) -> bool:
    return figures.get(f"{name}_before") is not None and figures.get(f"{name}_after") is not None


def _interval(value: float, low: float, high: float) -> str:
    return f"{_percent(value)} [{_percent(low)}, {_percent(high)}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rounded(count: float) -> int:
    """A number of prompts as one says it: two digits."""
    whole = max(1, round(count))
    step = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step
