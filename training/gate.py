"""May a policy serve? PROMOTE, HOLD or REJECT, in words; a pure function of what was measured.

Each question is answered by *passed*, *failed* or *unclear*. One failure rejects; else one unclear answer holds, and
says what would settle it; else the policy may serve. What was not measured is a note, never an answer. A person
promotes whatever they like: the gate says what the figures allow to be said, and ``studio loop`` goes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from training.intervals import wilson
from training.paired import Paired


class Verdict(StrEnum):
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
class Limits:
    """How far a policy may be off and still serve.

    ``margin`` is how much of a benchmark's score may be lost, in the score's own units (0.01 is one point of a share);
    ``ends`` how much smaller the share of replies may be that end by themselves; ``distinct`` what share of the variety
    of replies must be left; ``longer`` is the growth of replies from which on a reader is told; ``kl`` the most nats
    per reply, if there is a budget.
    """

    margin: float = 0.01
    ends: float = 0.1
    distinct: float = 0.5
    longer: float = 1.5
    kl: float | None = None


@dataclass(frozen=True)
class TaskResult:
    """A benchmark that both policies took."""

    task: str
    compared: Paired
    higher_is_better: bool = True


@dataclass(frozen=True)
class Reason:
    """One question, its answer and the sentence that says so."""

    question: str
    answer: Answer
    words: str


@dataclass(frozen=True)
class Decision:
    """The verdict with every sentence it rests on, and the limits it was made by."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    limits: Limits = field(default_factory=Limits)

    def as_json(self) -> dict[str, Any]:
        """The decision as plain JSON."""
        return asdict(self) | {"verdict": self.verdict.value, "reasons": [asdict(reason) for reason in self.reasons]}


def decide(
    figures: Mapping[str, Any] | None,
    *,
    against: str = "the champion",
    tasks: Sequence[TaskResult] = (),
    notes: Sequence[str] = (),
    judge_taught_it: bool = False,
    limits: Limits | None = None,
) -> Decision:
    """Decide by a win-rate scorecard over the champion and by the benchmarks both took.

    ``figures`` are those of ``training.evaluate.compare_policies``, None where nothing was measured yet;
    ``notes`` are told and decide nothing; ``judge_taught_it`` says that the judge is a reward model this very policy
    was trained to please.
    """
    limits = limits or Limits()
    reasons = [_win_rate(figures, against)]
    if figures is not None:
        reasons += _judge(judge_taught_it)
        reasons += [*_ends(figures, limits), *_variety(figures, limits), *_distance(figures, limits)]
        reasons += _length(figures, limits)
    reasons += [_task(result, limits) for result in tasks] or [_NO_BENCHMARK]
    reasons += [Reason("benchmarks", Answer.note, words) for words in notes]
    return Decision(_verdict({reason.answer for reason in reasons}), tuple(reasons), limits)


def in_words(decision: Mapping[str, Any]) -> list[str]:
    """A decision, as it is kept, in lines: the verdict, then each reason with its answer."""
    return [str(decision["verdict"]), *(f"  {one['answer']}: {one['words']}" for one in decision["reasons"])]


_NO_BENCHMARK = Reason(
    "benchmarks", Answer.note, "No benchmark was taken by both, so nothing is known of what it may have unlearnt."
)


def _verdict(answers: set[Answer]) -> Verdict:
    if Answer.failed in answers:
        return Verdict.reject
    return Verdict.hold if Answer.unclear in answers else Verdict.promote


def _win_rate(figures: Mapping[str, Any] | None, against: str) -> Reason:
    question = f"preferred over {against}"
    if figures is None:
        words = f"It was never measured against {against}: `studio evaluate` does that."
        return Reason(question, Answer.unclear, words)
    value, low, high, n = (figures[name] for name in ("win_rate", "low", "high", "n_prompts"))
    seen = (
        f"{_percent(value)} [{_percent(low)}, {_percent(high)}] of comparisons with {against} on {n} held-out prompts"
    )
    if low > 0.5:
        return Reason(question, Answer.passed, f"It wins {seen}.")
    if high < 0.5:
        return Reason(question, Answer.failed, f"It wins only {seen}.")
    return Reason(question, Answer.unclear, f"It wins {seen}: cannot tell. {_prompts_needed(value, low, high, n)}")


def _prompts_needed(value: float, low: float, high: float, n: int) -> str:
    """What more prompts would show; the detectable distance from one half shrinks with their square root."""
    detectable = (high - low) / 2 * _POWERED
    smallest = f"So many prompts show a win rate from {_percent(min(1.0, 0.5 + detectable))} on"
    distance = abs(value - 0.5)
    if distance < _NOTHING:
        return f"{smallest}; the two look alike, and more prompts would hardly show otherwise."
    return f"{smallest}; about {_rounded(n * (detectable / distance) ** 2):,} would show this one."


_POWERED = (1.959964 + 0.841621) / 1.959964
"""From the half of a 95 % interval to the difference that is found with a power of 80 %."""
_NOTHING = 0.005


def _judge(judge_taught_it: bool) -> list[Reason]:
    if not judge_taught_it:
        return []
    words = (
        "The judge is the reward model that it was trained to please, which says nothing of what people prefer. "
        "Measure it with another judge."
    )
    return [Reason("an independent judge", Answer.unclear, words)]


def _ends(figures: Mapping[str, Any], limits: Limits) -> list[Reason]:
    """Of few replies one that was cut is no proof: it failed where even the upper end of the interval is too low."""
    if not _measured(figures, "ended"):
        return []
    before, after = figures["ended_before"], figures["ended_after"]
    replies = figures["n_prompts"] * figures.get("samples", 1)
    words = f"{_percent(after)} of its {replies:,} replies end by themselves; {_percent(before)} did."
    if after >= before - limits.ends:
        answer = Answer.passed
    else:
        at_most = wilson(after * replies, replies).high
        answer = Answer.failed if at_most < before - limits.ends else Answer.unclear
    return [Reason("replies end", answer, words)]


def _variety(figures: Mapping[str, Any], limits: Limits) -> list[Reason]:
    if not _measured(figures, "distinct"):
        return []
    before, after = figures["distinct_before"], figures["distinct_after"]
    words = f"{_percent(after)} of its replies are said once; {_percent(before)} were."
    answer = Answer.passed if after >= before * limits.distinct else Answer.failed
    return [Reason("replies differ", answer, words)]


def _distance(figures: Mapping[str, Any], limits: Limits) -> list[Reason]:
    if limits.kl is None or figures.get("kl") is None:
        return []
    words = f"It moved {figures['kl']:.1f} nats per reply; {limits.kl:g} are allowed."
    return [
        Reason("close to where it came from", Answer.passed if figures["kl"] <= limits.kl else Answer.failed, words)
    ]


def _length(figures: Mapping[str, Any], limits: Limits) -> list[Reason]:
    if not _measured(figures, "length") or figures["length_after"] <= limits.longer * figures["length_before"]:
        return []
    words = (
        f"Its replies grew from {figures['length_before']:.0f} to {figures['length_after']:.0f} words: "
        "read some, for judges tend to like length."
    )
    return [Reason("length", Answer.note, words)]


def _task(result: TaskResult, limits: Limits) -> Reason:
    """Not worse than the champion by more than the margin, with 95 % on the one side that matters."""
    compared, question = result.compared, f"benchmark {result.task}"
    gains = (compared.difference, compared.at_least, compared.at_most)
    gain, least, most = gains if result.higher_is_better else (-gains[0], -gains[2], -gains[1])
    is_share = min(compared.mean_a, compared.mean_b) >= 0 and max(compared.mean_a, compared.mean_b) <= 1
    margin = _amount(limits.margin, is_share)
    change = f"{'gained' if gain > 0 else 'lost'} {_amount(abs(gain), is_share)}" if gain else "did not change"
    seen = f"{result.task} {change} ({compared.mean_b:.3f} to {compared.mean_a:.3f}, {compared.n:,} items)"
    if least > -limits.margin:
        return Reason(question, Answer.passed, f"{seen}; with 95 % it lost less than {margin}.")
    if most < -limits.margin:
        return Reason(question, Answer.failed, f"{seen}; with 95 % it lost more than {margin}.")
    return Reason(question, Answer.unclear, f"{seen}: cannot tell whether it lost {margin}. {_needed(result, limits)}")


def _needed(result: TaskResult, limits: Limits) -> str:
    if limits.margin == 0:
        return "No number of items shows that nothing at all was lost; allow a margin."
    return f"About {_rounded(result.compared.items_for(limits.margin)):,} items would show it."


def _amount(difference: float, is_share: bool) -> str:
    """A difference as one says it: hundredths of a share are points; any other score is told in its own units."""
    return f"{100 * difference:.1f} points" if is_share else f"{difference:.3g}"


def _measured(figures: Mapping[str, Any], name: str) -> bool:
    return figures.get(f"{name}_before") is not None and figures.get(f"{name}_after") is not None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rounded(count: float) -> int:
    """A number of prompts as one says it: two digits."""
    whole = max(1, round(count))
    step = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step
