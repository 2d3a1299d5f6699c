"""Policies: the list, one in full with its measurements and its lineage, the question before a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from feedback.tables import CheckpointRow, PolicyRow, RunRow, ScorecardRow
from feedback.types import RunState
from studio.page.commands import on_the_page
from studio.page.html import Html, badge, element, escape, facts, join, notice, progress_bar, table
from studio.page.text import ago, number, share
from studio.services.policies import PolicyExport, PolicySummary
from training.evaluation.people import PEOPLE
from training.export.archive import archive_name


def policies_table(summaries: Sequence[PolicySummary], selected: str | None, now: datetime) -> Html:
    """All policies with where they came from and how they fare; each row can be picked."""
    if not summaries:
        return notice("No policy yet", "Add a model below; once it is promoted, it serves.")
    rows = [
        [
            summary.policy.name,
            badge("champion", "good") if summary.is_champion else "",
            summary.parent or "—",
            summary.dataset or "—",
            win_rate(summary.win_rate, summary.against),
            ago(summary.policy.created_at, now),
        ]
        for summary in summaries
    ]
    shown = table(
        ("Policy", "Serves", "Parent", "Dataset", "Win rate", "Made"),
        rows,
        caption="Policies, newest first",
        keys=[summary.policy.id for summary in summaries],
        selected=selected,
    )
    if selected is not None:
        return shown
    hint = "Pick a policy to see where it came from, to measure it against another, and to let it serve."
    return join([shown, element("p", hint, class_="quiet legend")])


def win_rate(card: ScorecardRow | None, against: str | None) -> Html:
    """A win rate with its interval, its sample and whom it was measured against; never a bare number."""
    if card is None or card.figures.get("win_rate") is None:
        return element("span", "not measured", class_="quiet")
    figures = card.figures
    interval = f"95 %: {share(figures.get('low', 0))} to {share(figures.get('high', 1))}"
    sample = f"n = {figures.get('n_prompts', '?')}"
    chosen = f" by its best of {figures['best_of']} replies" if "best_of" in figures else ""
    return element(
        "span",
        element("strong", share(figures["win_rate"], 1)),
        f" over {against or 'another'}{chosen}",
        element("span", f"{interval}, {sample}, {_judged_by(card)}", class_="quiet block"),
    )


def _judged_by(card: ScorecardRow) -> str:
    """Who judged, and of people how many of the prompts they were asked about they have answered."""
    rule, reward = card.settings.get("oracle"), card.settings.get("reward")
    if rule == PEOPLE:
        said, waiting = card.figures.get("n_prompts", 0), card.figures.get("waiting", 0)
        return f"judge people ({said:,} of {said + waiting:,})" if waiting else "judge people"
    return f"judge rule {rule}" if rule else f"judge reward model {reward or '?'}"


def policy_detail(
    summary: PolicySummary,
    lineage: Mapping[str, Any],
    measured: Sequence[tuple[ScorecardRow, str]],
    gate: Html = Html(""),
    benchmarks: Html = Html(""),
) -> Html:
    """One policy: what it is, whether it may serve, all that was measured, and its way back to the base model."""
    policy = summary.policy
    champion = badge("champion", "good") if summary.is_champion else ""
    return element(
        "div",
        element("div", element("h3", policy.name), champion, class_="detail-head"),
        facts([("Id", policy.id), ("Base model", policy.base), ("Note", policy.note)]),
        gate,
        _measured(measured),
        benchmarks,
        element("h4", "Where it came from"),
        element("ol", *_generations_back(lineage), class_="lineage"),
        class_="detail",
    )


def _measured(measured: Sequence[tuple[ScorecardRow, str]]) -> Html:
    if not measured:
        return Html("")
    return element("div", element("h4", "Measured"), measured_table(measured, caption="Evaluations, people first"))


def measured_table(measured: Sequence[tuple[ScorecardRow, str]], *, caption: str) -> Html:
    """Win rates, each with the policy it is over, in the order given."""
    rows = [
        [
            win_rate(card, against),
            share(card.figures["ties"], 1) if "ties" in card.figures else "—",
            number(card.figures.get("kl")),
            _lengths(card),
        ]
        for card, against in measured
    ]
    return table(("Win rate", "Ties", "KL", "Reply length"), rows, caption=caption)


def _lengths(card: ScorecardRow) -> str:
    """How replies grew or shrank; people compare replies, and nobody counts their words."""
    if card.figures.get("length_after") is None:
        return "—"
    return f"{number(card.figures.get('length_before'))} → {number(card.figures['length_after'])} words"


def _generations_back(lineage: Mapping[str, Any] | None) -> list[Html]:
    """One list item per ancestor: the policy, the run that made it, the dataset, the people, the replies."""
    steps: list[Html] = []
    while lineage:
        steps.append(element("li", *_lineage_step(lineage)))
        lineage = lineage.get("parent")
    return steps


def _lineage_step(step: Mapping[str, Any]) -> list[object]:
    run = step.get("run")
    lines: list[object] = [element("div", element("strong", step["policy"]["name"]), class_="lineage-policy")]
    if not run:
        return [*lines, _line("base model", step["policy"]["base"])] if not step.get("parent") else lines
    lines.append(_line("made by", f"run {run['id']} ({run['method']})"))
    if not step.get("prompts_only"):
        return [*lines, *_taught_by(step)]
    if step.get("dataset"):
        lines.append(_line("with the prompts of", f"dataset {step['dataset']['name']}"))
    if step.get("reward_function"):
        lines.append(_line("scored by", f"the function {step['reward_function']}"))
    for reward in step.get("rewards") or []:
        lines += [_line("scored by", f"reward model {reward['checkpoint']['name']}"), *_taught_by(reward)]
    return lines


def _taught_by(step: Mapping[str, Any]) -> list[Html]:
    """The dataset that a policy or a reward model learned from, who judged it, and whose replies those were."""
    dataset, judged = step.get("dataset"), step.get("judgments") or {}
    lines = []
    if dataset:
        pairs = dataset.get("counts", {}).get("pairs", 0)
        lines.append(_line("learned from", f"dataset {dataset['name']}: {pairs:,} pairs, hash {dataset['hash'][:12]}"))
    if judged.get("count"):
        lines.append(_line("judged by", _people(judged)))
    if step.get("judged_policies"):
        lines.append(
            _line("of replies by", ", ".join(f"{name} ({n:,})" for name, n in step["judged_policies"].items()))
        )
    return lines


def _line(verb: str, what: str) -> Html:
    return element("div", element("span", f"{verb} ", class_="quiet"), what, class_="lineage-line")


def _people(judged: Mapping[str, Any]) -> str:
    shown = [f"{name} ({count:,})" for name, count in judged.get("annotators", {}).items()]
    more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
    sources = ", ".join(f"{count:,} {source}" for source, count in judged.get("by_source", {}).items())
    return f"{', '.join(shown[:6])}{more}: {judged['count']:,} judgments, {sources}"


def promote_label(chosen: PolicySummary) -> str:
    """What the promote button says of the policy shown."""
    name = chosen.policy.name
    return f"{name} serves already" if chosen.is_champion else f"Promote {name}"


def promote_question(chosen: PolicySummary, champion: str | None, gate: str = "") -> Html:
    """What a promotion will do, before it is done, and what the gate says of it."""
    name = chosen.policy.name
    undo = f"To undo it, promote {champion} again: nothing is deleted." if champion else ""
    return notice(
        f"Promote {name}?",
        gate,
        f"{name} will serve from now on: pairs waiting from other policies leave the pool, and new ones are written.",
        undo,
        tone="warn",
    )


def evaluation_text(run: RunRow, judge: str) -> str:
    """Where the result of an evaluation that was asked for will be."""
    if judge == PEOPLE:
        return f"{run.id} draws the pairs. They come first on the Label tab then; what people say of them is told here."
    return f"{run.id} waits for the worker; its progress is on the Train tab, its result here."


def promoted_text(policy: PolicyRow, previous: str | None, filling: bool) -> str:
    """What a promotion did and how it is taken back."""
    text = f"{policy.name} serves now."
    if filling:
        text += " New pairs are being written with it."
    if previous and previous != policy.name:
        text += f" To undo, promote {previous} again."
    return str(escape(text))


USUAL_EXPORT = "Merged model, for transformers"
EXPORT_CHOICES = {
    "PEFT adapter": ("adapter", "f16"),
    USUAL_EXPORT: ("merged", "f16"),
    "GGUF file, F16": ("gguf", "f16"),
    "GGUF file, Q8_0": ("gguf", "q8_0"),
}
"""What a policy can be exported as on the page: the form and the weights of a GGUF file, by what it is called."""

_FLAGS = {
    "`--as merged`": "“Merged model”",
    "`--as adapter`": "“PEFT adapter”",
    "`--quantization f16`": "“GGUF file, F16”",
}


def exports_panel(policy: PolicyRow, exports: Sequence[PolicyExport]) -> Html:
    """How far each export of a policy is, and the archives that can be downloaded."""
    names = {kind: name for name, kind in EXPORT_CHOICES.items()}
    rows = []
    for one in exports:
        name = names[one.form, one.quantization if one.form == "gguf" else "f16"]
        rows.append(element("li", element("strong", f"{name}: "), _export_state(one), _archive_link(policy, one, name)))
    return element("ul", *rows, class_="exports") if rows else Html("")


def _export_state(export: PolicyExport) -> Html:
    run = export.run
    if run.state is RunState.queued:
        return escape("waits for the worker. ")
    if not run.state.is_terminal:
        return join([f"{100 * run.progress:.0f} %, {run.progress_text}. ", progress_bar(run.progress, "Export")])
    if run.state is RunState.succeeded:
        checks = " ".join(map(str, run.result.get("checks") or ()))
        return escape(f"{checks} " if export.is_there else "its archive was removed; export it again. ")
    reason = on_the_page(run.error or run.state.value)
    for flag, words in _FLAGS.items():
        reason = reason.replace(flag, words)
    return escape(f"failed: {reason} ")


def _archive_link(policy: PolicyRow, export: PolicyExport, name: str) -> Html:
    """A link to the archive; relative, so a path prefix keeps working."""
    if not export.is_there:
        return Html("")
    size = export.run.result.get("bytes") if export.run.state is RunState.succeeded else None
    words = f"Download ({size / 1e6:,.1f} MB)" if size else "Download the earlier archive"
    query = f"form={export.form}&quantization={export.quantization}"
    return element(
        "a",
        words,
        href=f"api/policies/{policy.id}/export?{query}",
        download=archive_name(policy.name, export.form, export.quantization),
        aria_label=f"{words}: {policy.name}, {name}",
        class_="download",
    )


def policy_choices(summaries: Sequence[PolicySummary], *, but: str | None = None) -> list[tuple[str, str]]:
    """Policies for a dropdown, the champion marked; the one whose id is ``but`` is left out."""
    return [
        (f"{item.policy.name} (champion)" if item.is_champion else item.policy.name, item.policy.id)
        for item in summaries
        if item.policy.id != but
    ]


def judge_choices(rules: Sequence[str], rewards: Sequence[CheckpointRow]) -> list[tuple[str, str]]:
    """Who can judge an evaluation: people, oracle rules, then reward models."""
    return [
        ("people, on the Label tab", PEOPLE),
        *((f"rule: {rule}", rule) for rule in rules),
        *((f"reward model: {row.name}", f"reward:{row.id}") for row in rewards),
    ]
