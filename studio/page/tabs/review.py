"""Review: how good the judgments are, who to look at, and what to do about it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback.types import MatchupKind, UserRole, now
from studio.page.tabs.wiring import QUICK, TOLD, bind, given, markup, on_pick, picker
from studio.page.views import review as review_view
from studio.services.facade import Services
from studio.services.labeling import LOCAL_ANNOTATOR

PAGE = 10

Answers = tuple[tuple[str, str, dict[str, str]], ...]
OF_A_PAIR: Answers = (
    ("settle-left", "Left is better", {"verdict": "left"}),
    ("settle-right", "Right is better", {"verdict": "right"}),
    ("settle-tie", "Tie", {"verdict": "tie"}),
)
OF_ANY: Answers = (
    ("settle-both-bad", "Both bad", {"verdict": "both_bad"}),
    ("settle-skip", "Leave it to another reviewer", {"skip_reason": "not_said"}),
)

ACTS = {
    "exclude": "Exclude",
    "restore": "Count it again",
    "requeue": "Ask one more person",
    "message": "Send the message",
}


def refresh(services: Services, annotator: str | None) -> tuple[Any, ...]:
    """The figures, the annotators and what was done, as they are now."""
    reviewing = services.review
    report = reviewing.report()
    line = next((line for line in report.annotators if line.name == annotator), None)
    return (
        review_view.summary(report, reviewing.count_disputes()),
        review_view.annotators_table(report, annotator),
        review_view.annotator_detail(line, report) if line else "",
        review_view.acts_table(reviewing.list_acts(20), now()),
    )


def pick_annotator(services: Services, key: str) -> tuple[Any, ...]:
    """Show one annotator: their figures and the first page of their judgments."""
    return (*refresh(services, key), key, *page(services, key, None, 0), gr.update(visible=True))


def page(services: Services, annotator: str | None, judgment: str | None, offset: float) -> tuple[Any, ...]:
    """One page of an annotator's judgments, and how far it begins."""
    start = max(0, int(offset))
    if not annotator:
        return "", None, 0, review_view.selected_line(None)
    items = services.review.list_evidence(annotator=annotator, limit=PAGE, offset=start)
    chosen = next((item for item in items if item.judgment.id == judgment), None)
    return (
        review_view.evidence_list(items, judgment, now(), offset=start),
        chosen.judgment.id if chosen else None,
        start,
        review_view.selected_line(chosen),
    )


def turn(services: Services, step: int, annotator: str | None, offset: float) -> tuple[Any, ...]:
    """The page before or after; the last page stays when there is none after it."""
    start = max(0, int(offset) + step * PAGE)
    if annotator and not services.review.list_evidence(annotator=annotator, limit=1, offset=start):
        start = max(0, int(offset))
    return page(services, annotator, None, start)


def pick_judgment(services: Services, key: str, annotator: str | None, offset: float) -> tuple[Any, ...]:
    """Choose the judgment that the buttons act on."""
    return page(services, annotator, key, offset)


def act(
    services: Services,
    name: str,
    annotator: str | None,
    judgment: str | None,
    reason: str,
    requeue: bool,
    offset: float,
) -> tuple[Any, ...]:
    """Exclude, restore, ask again or write, with the reason; everything is kept and can be undone."""
    reviewing = services.review
    if name == "message":
        reviewing.message(given(annotator, "an annotator"), LOCAL_ANNOTATOR, reason)
    else:
        chosen = given(judgment, "a judgment")
        if name == "exclude":
            reviewing.exclude(chosen, LOCAL_ANNOTATOR, reason, requeue=requeue)
        elif name == "restore":
            reviewing.restore(chosen, LOCAL_ANNOTATOR, reason)
        else:
            items = reviewing.list_evidence(annotator=annotator, limit=PAGE, offset=int(offset))
            matchup = next(item.judgment.matchup_id for item in items if item.judgment.id == chosen)
            reviewing.requeue(matchup, LOCAL_ANNOTATOR, reason)
    gr.Info("Done and noted below; nothing was deleted.")
    return (*refresh(services, annotator), *page(services, annotator, judgment, offset), "")


def next_dispute(services: Services) -> tuple[Any, ...]:
    """Show the next disputed task, blind, with what can be said of its kind."""
    task = services.review.next_dispute(LOCAL_ANNOTATOR, resume=True)
    is_pair = task is not None and task.kind is MatchupKind.pair
    pair, ranking = gr.update(visible=is_pair), gr.update(visible=not is_pair)
    order = gr.update(value="", visible=not is_pair)
    return (
        review_view.dispute(task),
        task.lease_id if task else "",
        gr.update(visible=task is not None),
        *[pair] * len(OF_A_PAIR),
        order,
        ranking,
        gr.Button("Both bad" if is_pair else "All bad"),
    )


def settle(services: Services, said: dict[str, str], lease: str) -> tuple[Any, ...]:
    """Record the adjudicator's answer and show the next disputed task."""
    services.labeling.judge(given(lease, "a disputed task"), **said)
    return next_dispute(services)


def settle_ranking(services: Services, lease: str, order: str) -> tuple[Any, ...]:
    """Record the order in which the adjudicator puts the replies and show the next disputed task."""
    services.labeling.judge(given(lease, "a disputed task"), ranking=review_view.ranking_of(order))
    return next_dispute(services)


def show_checks(services: Services) -> tuple[Any, ...]:
    """The shares in force; only whoever may change them has the button."""
    checks = services.labeling.checks()
    may = services.users.whoami().role.covers(UserRole.researcher)
    return 100 * checks.gold_share, 100 * checks.repeat_share, checks.repeat_after / 60, gr.update(visible=may)


def save_checks(services: Services, gold: float | None, repeat: float | None, minutes: float | None) -> tuple[Any, ...]:
    """Change the shares from the next task on; an empty field leaves its share as it is."""
    shares = {"gold_share": (gold, 100), "repeat_share": (repeat, 100), "repeat_after": (minutes, 1 / 60)}
    services.labeling.change_checks({name: value / unit for name, (value, unit) in shares.items() if value is not None})
    gr.Info("Saved: it holds from the next task on.")
    return show_checks(services)


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    annotator, judgment, offset, lease = gr.State(None), gr.State(None), gr.State(0), gr.State("")
    summary = markup(review_view.reading(), elem_id="review-summary")
    people = picker("annotators-table")
    with gr.Accordion("Settle what annotators disagree about", open=False, elem_id="adjudication"):
        show = gr.Button("Show the next disputed task", elem_id="next-dispute")
        disputed = markup(elem_id="disputed-pair")
        with gr.Row(visible=False, elem_id="settle-bar") as bar:
            of_a_pair = _answers(OF_A_PAIR)
            order = gr.Textbox(
                label="Best first, = for equals", placeholder="2 > 1 = 3", elem_id="settle-order", max_lines=1
            )
            in_order = gr.Button("Settle in this order", elem_id="settle-ranking", min_width=96)
            of_any = _answers(OF_ANY)
    detail = markup(elem_id="annotator-detail")
    with gr.Column(elem_id="review-judgments"):
        evidence = picker("evidence-list")
        with gr.Column(visible=False, elem_id="review-acts") as acts:
            with gr.Row(elem_id="evidence-pages"):
                chosen = markup(elem_id="chosen-judgment")
                newer = gr.Button("Newer", elem_id="evidence-newer", min_width=84, size="sm")
                older = gr.Button("Older", elem_id="evidence-older", min_width=84, size="sm")
            with gr.Row(elem_id="act-reason"):
                reason = gr.Textbox(
                    label="Reason, or the message to the annotator", elem_id="review-reason", max_length=2000, scale=3
                )
                requeue = gr.Checkbox(
                    label="Ask somebody else in its place", value=True, elem_id="review-requeue", min_width=200
                )
            with gr.Row(elem_id="act-bar"):
                buttons = {name: gr.Button(words, elem_id=f"act-{name}", min_width=140) for name, words in ACTS.items()}
    _build_checks(services, tab)
    done = markup(elem_id="review-log")

    figures, listed = [summary, people, detail, done], [evidence, judgment, offset, chosen]
    tab.select(bind(refresh, services), [annotator], figures, **QUICK)
    on_pick(people, pick_annotator, services, [], [*figures, annotator, *listed, acts])
    on_pick(evidence, pick_judgment, services, [annotator, offset], listed)
    newer.click(bind(turn, services, -1), [annotator, offset], listed, **TOLD)
    older.click(bind(turn, services, 1), [annotator, offset], listed, **TOLD)
    for name, button in buttons.items():
        inputs = [annotator, judgment, reason, requeue, offset]
        button.click(bind(act, services, name), inputs, [*figures, *listed, reason], **TOLD)
    desk = [disputed, lease, bar, *(button for button, _ in of_a_pair), order, in_order, of_any[0][0]]
    show.click(bind(next_dispute, services), None, desk, **TOLD)
    for button, said in [*of_a_pair, *of_any]:
        settled = button.click(bind(settle, services, said), [lease], desk, **TOLD)
        settled.then(bind(refresh, services), [annotator], figures, **QUICK)
    settled = gr.on([in_order.click, order.submit], bind(settle_ranking, services), [lease, order], desk, **TOLD)
    settled.then(bind(refresh, services), [annotator], figures, **QUICK)


def _answers(answers: Answers) -> list[tuple[gr.Button, dict[str, str]]]:
    return [(gr.Button(words, elem_id=elem_id, min_width=96), said) for elem_id, words, said in answers]


def _build_checks(services: Services, tab: gr.Tab) -> None:
    """How often a task is a check: three numbers that a researcher may change."""
    with gr.Accordion("Gold and repeats", open=False, elem_id="checks"):
        with gr.Row():
            shares = [
                gr.Number(label=words, elem_id=elem_id, minimum=0, maximum=50, precision=1)
                for elem_id, words in (
                    ("gold-share", "Tasks with a known answer, %"),
                    ("repeat-share", "Tasks shown again, %"),
                )
            ]
            delay = gr.Number(label="Shown again after, minutes", elem_id="repeat-after", minimum=0, precision=1)
        save = gr.Button("Save for the next tasks", elem_id="save-checks")
    tab.select(bind(show_checks, services), None, [*shares, delay, save], **QUICK)
    save.click(bind(save_checks, services), [*shares, delay], [*shares, delay, save], **TOLD)
