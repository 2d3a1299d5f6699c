"""May a policy serve: the gate's verdict with its reasons, and the benchmarks that two policies took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feedback.store.models.benchmarks import Both
from feedback.tables import BenchmarkRow
from studio.page.commands import on_the_page
from studio.page.html import Html, badge, element, join, plain_text, range_plot, table
from training.evaluation.benchmark_comparison import Compared, Comparison
from training.evaluation.gate import Answer, Decision, GateVerdict, Reason
from training.evaluation.paired_tests import PairedFinding

VERDICT_TONES = {GateVerdict.promote: "good", GateVerdict.hold: "warn", GateVerdict.reject: "bad"}
_MARKS = {
    Answer.passed: ("passed", "good"),
    Answer.failed: ("failed", "bad"),
    Answer.unclear: ("cannot tell", "warn"),
    Answer.note: ("note", "neutral"),
}
_FINDINGS = {PairedFinding.better: "good", PairedFinding.worse: "bad", PairedFinding.unclear: "neutral"}
SMALLEST_SCALE = 0.02


def gate_panel(decision: Decision | None, serves: bool = False) -> Html:
    """The verdict and each sentence it rests on; nothing where there is nobody to be measured against."""
    if decision is None:
        return Html("")
    head = element(
        "h4",
        "Was it right to let it serve? " if serves else "May it serve? ",
        badge(decision.verdict.value, VERDICT_TONES[decision.verdict]),
    )
    return element("div", head, reasons_list(decision.reasons), id="gate-verdict")


def reasons_list(reasons: Sequence[Reason]) -> Html:
    """Each sentence of a decision with the answer it gives."""
    lines = [
        element("li", badge(*_MARKS[reason.answer]), element("span", on_the_page(reason.words))) for reason in reasons
    ]
    return element("ul", *lines, class_="reasons")


def gate_sentence(decision: Decision | None) -> str:
    """The verdict with what speaks against serving, in one line."""
    if decision is None:
        return ""
    against = [one.words for one in decision.reasons if one.answer in (Answer.failed, Answer.unclear)]
    return on_the_page(f"The gate says {decision.verdict.value}{': ' if against else '.'}{' '.join(against)}")


def benchmarks_panel(
    taken: Sequence[BenchmarkRow],
    compared: Compared | None,
    names: tuple[str, str],
    differing: Mapping[str, Sequence[Both]],
) -> Html:
    """What a policy scored, beside the other where both took a task; ``names`` are its own and the other's."""
    if not taken:
        return Html("")
    comparisons = {one.task: one for one in compared.comparisons} if compared else {}
    alone = [row for row in _newest(taken) if row.task not in comparisons]
    parts: list[Html] = [element("h4", "Benchmarks")]
    if comparisons:
        parts += [_compared(list(comparisons.values()), names), *_items(comparisons, names, differing)]
    if alone:
        rows = [[row.task, metric, f"{mean:.3f}", f"{row.n:,}"] for row in alone for metric, mean in row.means.items()]
        parts.append(table(("Task", "Metric", "Score", "Items"), rows, caption="Taken by this policy alone"))
    parts += [element("p", sentence, class_="quiet") for sentence in (compared.unlike if compared else ())]
    return element("div", *parts, id="benchmarks")


def _newest(taken: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    newest: dict[str, BenchmarkRow] = {}
    for row in taken:
        newest.setdefault(row.task, row)
    return list(newest.values())


def _compared(found: Sequence[Comparison], names: tuple[str, str]) -> Html:
    scale = max(SMALLEST_SCALE, *(max(abs(one.paired.low), abs(one.paired.high)) for one in found))
    rows = [
        [
            one.task,
            one.metric,
            f"{one.paired.mean_b:.3f} → {one.paired.mean_a:.3f}",
            _difference(one, scale),
            f"±{one.paired.detectable:.3f}",
            f"{one.paired.n:,}",
            element("span", badge(one.finding.value, _FINDINGS[one.finding]), f" p = {one.p_adjusted:.2g}"),
        ]
        for one in found
    ]
    headers = ("Task", "Metric", f"{names[1]} → {names[0]}", "Difference, 95 %", "Shows from", "Items", "")
    legend = (
        f"Item by item against {names[1]}. The dot is the mean difference, the bar its 95 % interval, the line in the "
        f"middle none; the plots span ±{scale:.2g}. “Shows from” is the smallest difference that so many items would "
        "show in four cases out of five."
    )
    return join([table(headers, rows, caption="Benchmarks both took"), element("p", legend, class_="quiet legend")])


def _difference(one: Comparison, scale: float) -> Html:
    pair = one.paired
    low, value, high = ((bound + scale) / (2 * scale) for bound in (pair.low, pair.difference, pair.high))
    said = f"{pair.difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})"
    line = range_plot(low, value, high, title=f"Difference on {one.task}", said=said, marks=(0.5,))
    return element("span", line, element("span", f"{pair.difference:+.3f}", class_="range-value"), class_="range-cell")


def _items(
    comparisons: Mapping[str, Comparison], names: tuple[str, str], differing: Mapping[str, Sequence[Both]]
) -> list[Html]:
    """The items that a policy lost first, to be read: a mean tells how much, they tell what."""
    shown = []
    for task, items in differing.items():
        one = comparisons[task]
        said = f"{task}: read what differs ({one.lost:,} lost, {one.won:,} won of {one.paired.n:,} items)"
        lines = [_item(item, names) for item in items]
        if lines:
            shown.append(element("details", element("summary", said), *lines))
    return shown


def _item(item: Both, names: tuple[str, str]) -> Html:
    return element(
        "div",
        plain_text(item.asked),
        element("p", f"{names[0]} ({item.score_a:g})", class_="quiet"),
        plain_text(item.answer_a),
        element("p", f"{names[1]} ({item.score_b:g})", class_="quiet"),
        plain_text(item.answer_b),
        class_="benchmark-item",
    )
