"""The Review tab: agreement, one line per annotator, plots of their intervals, the judgments, what was done.

A figure that is not defined is shown as a dash with its reason under it; nothing here reads NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from feedback.errors import InvalidInput
from feedback.labeling.assignment import Task
from feedback.rules.annotations import FLAG_REASONS, SKIP_REASONS, to_shown
from feedback.store.reports.evidence import Evidence
from feedback.tables import ReviewRow
from feedback.types import JudgmentState, MatchupState, Purpose, Verdict
from studio.page.html import Html, badge, element, facts, notice, plain_text, range_plot, table
from studio.page.text import ago, label_of, share
from studio.page.views.labeling.tools import STRENGTHS

if TYPE_CHECKING:
    from feedback.quality.agreement import Measure
    from feedback.quality.report import AnnotatorQuality, QualityReport

SHOWN_TEXT = 600
"""Characters of a prompt or a reply that a reviewer sees at once."""

GOLD_WORDS = {"trusted": ("trusted", "good"), "doubtful": ("fails", "bad"), "undecided": ("not enough yet", "neutral")}
STATE_WORDS = {
    MatchupState.open: ("waits for more opinions", "neutral"),
    MatchupState.disputed: ("disputed", "warn"),
    MatchupState.adjudicated: ("settled by a reviewer", "good"),
    MatchupState.retired: ("out of the pool", "neutral"),
}
"""What is worth saying of a pair's state; that all its opinions are in is the usual case and not said."""
LEGEND = (
    "Pick a name to read what that person judged. A dot is the estimate, the bar its 95 % interval, the line in the "
    "middle a coin. Correct is how often the answer is the one that the model of all annotators believes in; the two "
    "leanings are what somebody would choose of two equally good replies. Gold pairs have a known answer."
)
PURPOSE_WORDS = {
    Purpose.gold: "known answer",
    Purpose.repeat: "shown again",
    Purpose.evaluate: "evaluation",
    Purpose.playground: "playground",
}


def summary(report: QualityReport, disputed: int) -> Html:
    """All judgments together, as tiles; under them what is not defined yet, and why."""
    tiles = [
        ("Judgments", f"{report.judgments:,}", ""),
        ("Agreement", *_with_interval(report.agreement, percent=True)),
        ("Krippendorff's alpha", *_with_interval(report.alpha)),
        ("Ceiling for a reward model", *_with_interval(report.ceiling, percent=True)),
        ("Disputed, waiting", f"{disputed:,}", ""),
    ]
    notes = list(dict.fromkeys(m.note for m in (report.agreement, report.alpha, report.ceiling) if m.note))
    return element(
        "div",
        element("dl", *(_tile(*tile) for tile in tiles), class_="tiles"),
        *(element("p", note, class_="quiet") for note in notes),
        element(
            "p",
            "Agreement is of two people on one pair, alpha what is left of it after chance; the ceiling is how often "
            "even a perfect reward model would agree with one of these people.",
            class_="quiet",
        ),
    )


def annotators_table(report: QualityReport, selected: str | None) -> Html:
    """One line per annotator, the least reliable first, with their intervals drawn; each can be picked."""
    if not report.annotators:
        return notice(
            "Nobody has judged yet",
            "As soon as people judge on the Label tab, this shows how far they agree, who leans to a side, and who "
            "can be relied on. Ask for two opinions per pair, or mark pairs whose answer you know as gold.",
        )
    rows = [
        [
            line.name,
            f"{line.judgments:,}",
            interval_plot(line.accuracy, "Chance of being correct", marks=(0.5,)),
            interval_plot(line.left, "Chance of choosing left of two equal replies", marks=(0.5,)),
            interval_plot(line.longer, "Chance of choosing the one twice as long of two equal replies", marks=(0.5,)),
            _short(line.consistency),
            badge(*GOLD_WORDS[line.gold_verdict]) if line.gold.n else _short(line.gold),
            "—" if line.seconds.value is None else f"{line.seconds.value:.1f} s",
            _flags(line),
        ]
        for line in report.annotators
    ]
    leanings = ("Correct", "Leans left", "Leans longer")
    headers = ("Annotator", "Judgments", *leanings, "Same again", "Gold", "Median time", "Look at")
    names = [line.name for line in report.annotators]
    shown = table(headers, rows, caption="Annotators, the least reliable first", keys=names, selected=selected)
    return element("div", shown, element("p", LEGEND, class_="quiet legend"))


def reading() -> Html:
    """What stands there until the figures have come: of many judgments they take a moment."""
    return element("p", "Working out how far the annotators agree …", class_="quiet", role="status")


def _flags(line: AnnotatorQuality) -> Html:
    """What is unusual about an annotator, one word group each."""
    if not line.flags:
        return badge("nothing unusual", "good")
    return element("span", *(badge(flag, "bad") for flag in line.flags), class_="flags")


def interval_plot(measure: Measure, title: str, *, marks: Sequence[float] = ()) -> Html:
    """A share of 0 to 1 as a dot with its 95 % interval on a line; a dash with the reason where it is undefined."""
    if measure.value is None:
        return element("span", "—", class_="undefined", title=measure.note, aria_label=f"{title}: {measure.note}")
    low = measure.value if measure.low is None else measure.low
    high = measure.value if measure.high is None else measure.high
    said = f"{share(measure.value)} ({share(low)} to {share(high)}, {measure.n} judgments)"
    line = range_plot(low, measure.value, high, title=title, said=said, marks=marks)
    return element("span", line, element("span", share(measure.value), class_="range-value"), class_="range-cell")


def annotator_detail(line: AnnotatorQuality, report: QualityReport) -> Html:
    """Every figure of one annotator with its interval or the reason why there is none, and whom they agree with."""
    figures = [
        ("Correct, by the model of all annotators", line.accuracy, True),
        ("Chooses left of two equal replies", line.left, True),
        ("Chooses the one twice as long of two equal replies", line.longer, True),
        ("Chose the left reply", line.left_share, True),
        ("Chose the longer reply", line.longer_share, True),
        ("Says the same when a pair comes back swapped", line.consistency, True),
        ("Answers gold as known", line.gold, True),
        ("Answers sooner than the replies can be read", line.hasty, True),
    ]
    head = element(
        "div",
        element("h3", line.name),
        *(badge(flag, "bad") for flag in line.flags),
        badge(label_of(line.source.value)),
        class_="detail-head",
    )
    counts = facts(
        [
            ("Judgments", f"{line.judgments:,}"),
            ("Skips", f"{line.skips:,}"),
            ("Gold", GOLD_WORDS[line.gold_verdict][0]),
            ("Median time", "" if line.seconds.value is None else f"{line.seconds.value:.1f} s"),
        ]
    )
    rows = [
        [name, interval_plot(measure, name, marks=(0.5,)), _in_words(measure, percent=percent)]
        for name, measure, percent in figures
    ]
    return element(
        "section",
        head,
        counts,
        table(("Figure", "95 % interval", "In words"), rows, caption=f"Figures of {line.name}"),
        _shared(line, report),
        class_="detail",
    )


def evidence_list(items: Sequence[Evidence], selected: str | None, now: datetime, *, offset: int = 0) -> Html:
    """Judgments as a reviewer reads them: what was shown, what was said, what others said, what was done."""
    if not items:
        return notice("No judgments here", "Choose another annotator, or go back to the first page.")
    cards = [_evidence(item, selected, now) for item in items]
    heading = element("h4", f"Judgments {offset + 1} to {offset + len(items)}, newest first")
    return element("section", heading, *cards, class_="evidence")


def acts_table(rows: Sequence[ReviewRow], now: datetime) -> Html:
    """What reviewers did, newest first."""
    if not rows:
        return element("p", "No reviewer has acted yet.", class_="quiet")
    cells = [
        [label_of(row.act.value), row.judgment_id or row.matchup_id or row.annotator or "", row.reason, row.actor,
         ago(row.created_at, now)]
        for row in rows
    ]  # fmt: skip
    return table(("Act", "About", "Reason", "By", "When"), cells, caption="What reviewers did")


def dispute(task: Task | None) -> Html:
    """A pair that annotators disagree about, blind."""
    if task is None:
        return notice(
            "Nothing is disputed",
            "A pair comes here when all the opinions it may have are in and no answer has most of them.",
        )
    replies = [
        element("section", element("h3", name, class_="reply-heading"), plain_text(text), class_="reply-card")
        for name, text in zip(_places(len(task.responses)), task.responses, strict=True)
    ]
    return element(
        "article",
        element("section", plain_text(_conversation(task.messages)), class_="prompt-card", aria_label="The request"),
        element("div", *replies, class_="replies"),
        class_="pair",
    )


def ranking_of(order: str) -> list[int]:
    """``2 > 1 = 3`` as the rank of each reply: 2, 1, 2. The same notation that the Label tab writes."""
    try:
        groups = [[int(number) for number in group.split("=")] for group in order.split(">")]
    except ValueError:
        groups = []
    rank_of = {number: rank for rank, group in enumerate(groups, start=1) for number in group}
    named = sorted(number for group in groups for number in group)
    if not named or named != list(range(1, len(named) + 1)):
        raise InvalidInput(f"{order!r} is not an order of the replies; name each once, best first, as in 2 > 1 = 3.")
    return [rank_of[number] for number in named]


def selected_line(item: Evidence | None) -> Html:
    """Which judgment the buttons act on."""
    if item is None:
        return element("p", "Pick a judgment above to act on it; a message needs only the annotator.", class_="quiet")
    return element("p", "Chosen: ", element("strong", item.judgment.id), f" by {item.judgment.annotator}.")


def _evidence(item: Evidence, selected: str | None, now: datetime) -> Html:
    judgment = item.judgment
    is_out = judgment.state is JudgmentState.excluded
    head = element(
        "div",
        element(
            "button",
            judgment.id,
            type="button",
            class_="pick",
            data_pick=judgment.id,
            aria_pressed="true" if judgment.id == selected else "false",
        ),
        badge(_said(item), "warn" if is_out else "busy"),
        badge("excluded", "bad") if is_out else "",
        badge(f"flagged: {FLAG_REASONS.get(judgment.flag, judgment.flag).lower()}", "warn") if judgment.flag else "",
        badge(PURPOSE_WORDS[item.purpose]) if item.purpose in PURPOSE_WORDS else "",
        badge(*STATE_WORDS[item.state]) if item.state in STATE_WORDS else "",
        element("span", ago(judgment.created_at, now), class_="quiet"),
        class_="detail-head",
    )
    names = _places(len(item.responses))
    replies = [
        element("section", element("h5", name), plain_text(_cut(text)), class_="evidence-reply")
        for name, text in zip(names, item.responses, strict=True)
    ]
    others = ", ".join(f"{_answer(answer, judgment.shown_order)} × {n}" for answer, n in item.others.items())
    return element(
        "article",
        head,
        plain_text(_cut(_conversation(item.messages)), class_="model-text evidence-prompt"),
        element("div", *replies, class_="replies"),
        element("p", "Others said: ", others or "nobody else judged this pair", class_="quiet"),
        plain_text(f"Rationale: {judgment.rationale}") if judgment.rationale else "",
        *_remarks(item, names),
        *(
            element("p", f"{label_of(row.act.value)} by {row.actor}: {row.reason}", class_="quiet")
            for row in item.reviews
        ),
        class_="detail" + (" picked-card" if judgment.id == selected else ""),
    )


def _remarks(item: Evidence, names: Sequence[str]) -> list[Html]:
    """What was added beside the verdict, of the replies as they are laid out here."""
    judgment = item.judgment
    carried = ("edited", "spans", "criteria")
    said = to_shown({name: getattr(judgment, name) for name in carried}, judgment.shown_order)
    lines = []
    if edited := said["edited"]:
        lines.append(f"{names[edited['index']]}, edited: {_cut(edited['text'])}")
    for span in said["spans"] or []:
        words = item.responses[span["index"]][span["start"] : span["end"]]
        reason = f", {span['reason']}" if span.get("reason") else ""
        lines.append(f"{names[span['index']]}, marked {span['mark']}: “{_cut(words)}”{reason}")
    for name, ratings in (said["criteria"] or {}).items():
        lines.append(f"{name}: " + ", ".join("—" if rating is None else str(rating) for rating in ratings))
    return [plain_text(line) for line in lines]


def _shared(line: AnnotatorQuality, report: QualityReport) -> Html:
    rows = []
    for names, (shared, same) in sorted(report.shared.items(), key=lambda item: -item[1][0]):
        if line.name in names:
            other = names[0] if names[1] == line.name else names[1]
            rows.append([other, f"{shared:,}", share(same / shared)])
    if not rows:
        return element("p", "This person shares no pair with anybody yet.", class_="quiet")
    return element(
        "details",
        element("summary", "Agreement with each other person"),
        table(("With", "Shared pairs", "Said the same"), rows, caption="Agreement with each other person"),
    )


def _said(item: Evidence) -> str:
    judgment = item.judgment
    if judgment.ranking is not None:
        return _answer(" ".join(map(str, judgment.ranking)), judgment.shown_order)
    if judgment.verdict is Verdict.skip:
        reason = judgment.skip_reason or "no reason given"
        return f"skipped: {SKIP_REASONS.get(reason, reason).lower()}"
    answer = _answer(judgment.verdict.value if judgment.verdict else "", judgment.shown_order)
    return answer + (f", {STRENGTHS[judgment.strength]}" if judgment.strength else "")


def _answer(answer: str, shown_order: Sequence[int]) -> str:
    """A stored answer in the words of the screen that this judgment was made on."""
    if answer in (Verdict.first, Verdict.second):
        return "left" if shown_order[0] == (0 if answer == Verdict.first else 1) else "right"
    if answer[:1].isdigit():  # a ranking, one rank per reply in stored order
        ranks = answer.split()
        return "ranked " + ", ".join(ranks[index] for index in shown_order)
    return label_of(answer).lower()


def _places(count: int) -> list[str]:
    return ["Left", "Right"] if count == 2 else [f"Reply {number}" for number in range(1, count + 1)]


def _conversation(messages: Sequence[dict[str, str]]) -> str:
    return "\n\n".join(message["content"] for message in messages)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"


def _tile(name: str, value: str, interval: str) -> Html:
    return element(
        "div", element("dt", name), element("dd", value), element("dd", interval, class_="quiet") if interval else "",
        class_="tile",
    )  # fmt: skip


def _with_interval(measure: Measure, *, percent: bool = False) -> tuple[str, str]:
    if measure.value is None:
        return "—", ""
    spell = share if percent else "{:.2f}".format
    if measure.low is None or measure.high is None:
        return spell(measure.value), ""
    return spell(measure.value), f"{spell(measure.low)} to {spell(measure.high)}"


def _in_words(measure: Measure, *, percent: bool) -> str:
    if measure.value is None:
        return measure.note
    value, interval = _with_interval(measure, percent=percent)
    return f"{value}" + (f" ({interval})" if interval else "") + f" of {measure.n:,}"


def _short(measure: Measure) -> Html:
    if measure.value is None:
        return element("span", "—", class_="undefined", title=measure.note, aria_label=measure.note)
    return element("span", f"{share(measure.value)} of {measure.n}")
