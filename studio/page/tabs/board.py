"""The board at the top of the Policies tab: strengths by one judge, wins, KL and win rate, two policies compared."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from feedback.types import content_hash
from studio.page.tabs.wiring import QUICK, TOLD, bind, given, markup, on_pick, picker
from studio.page.views.board import distance_plot, pair, strengths, win_matrix
from studio.services.facade import Services
from training.board.standings import Board

CHAMPION = ("the champion", "")


class Seen(NamedTuple):
    """What shows the board, in the order in which ``shown`` fills it."""

    judge: gr.Dropdown
    strengths: gr.HTML
    wins: gr.HTML
    legend: gr.HTML
    plot: gr.Plot
    figures: gr.HTML
    digest: gr.State


class Chosen(NamedTuple):
    """What chooses the reference and the two policies that are compared."""

    reference: gr.Dropdown
    first: gr.Dropdown
    second: gr.Dropdown


def shown(services: Services, judge: str | None, reference: str | None) -> tuple[Any, ...]:
    """The board by a judge as it is now, and what it was made of."""
    return _parts(_board(services, judge, reference or None))


def watch(services: Services, judge: str | None, reference: str | None, digest: str) -> tuple[Any, ...]:
    """The board again where it changed; else what is on the page stays, so that nothing flickers or loses the focus."""
    board = _board(services, judge, reference or None)
    return _parts(board) if _digest(board) != digest else tuple(gr.skip() for _ in Seen._fields)


def refresh(services: Services, judge: str | None, reference: str | None, digest: str) -> tuple[Any, ...]:
    """The board when its tab is opened, and the policies that can be chosen."""
    names = [item.policy.name for item in services.policies.list_policies()]
    compared = gr.Dropdown(choices=names)
    choices = [CHAMPION, *((name, name) for name in names)]
    return (*watch(services, judge, reference, digest), gr.Dropdown(choices=choices), compared, compared)


def pick_pair(services: Services, key: str) -> tuple[Any, ...]:
    """Show the two policies of a chosen cell."""
    first, second = win_matrix.names_of(key)
    return first, second, compare(services, first, second)


def compare(services: Services, first: str | None, second: str | None) -> Any:
    """The first policy over the second."""
    found = services.evaluation.pair(given(first, "a policy"), given(second, "whom to compare it with"))
    return pair.pair_panel(found)


def swap(services: Services, first: str | None, second: str | None) -> tuple[Any, ...]:
    """The same two the other way round."""
    return second, first, compare(services, second, first)


def _board(services: Services, judge: str | None, reference: str | None) -> Board:
    """The board by the judge chosen; until one is, by people, or by the first other judge where people have none."""
    if judge:
        return services.evaluation.board(reference, judge)
    found = services.evaluation.board(reference)
    others = [other for other in found.judges if other != found.by]
    return services.evaluation.board(reference, others[0]) if others and not found.standings else found


def _parts(board: Board) -> tuple[Any, ...]:
    figure = distance_plot.distance_figure(board)
    return (
        gr.Dropdown(choices=strengths.judge_choices(board), value=board.by),
        strengths.strengths_table(board),
        win_matrix.win_matrix(board),
        distance_plot.distance_legend(board),
        gr.Plot(value=figure, visible=figure is not None),
        distance_plot.distance_words(board),
        _digest(board),
    )


def _digest(board: Board) -> str:
    return content_hash(board.as_json())


def build_board(services: Services, tab: gr.Tab, ticks: gr.Timer) -> None:
    """Lay the board out and connect it; ``ticks`` looks again while a run may change it."""
    seen, chosen, compared = _laid_out()
    asked = [seen.judge, chosen.reference]
    opened = [*asked, seen.digest]
    tab.select(bind(refresh, services), opened, [*seen, *chosen], **QUICK)
    ticks.tick(bind(watch, services), opened, [*seen], **QUICK)
    gr.on([seen.judge.input, chosen.reference.input], bind(shown, services), asked, [*seen], **TOLD)
    pair_of = [chosen.first, chosen.second]
    on_pick(seen.wins, pick_pair, services, [], [*pair_of, compared.panel])
    compared.button.click(bind(compare, services), pair_of, [compared.panel], **TOLD)
    compared.swap.click(bind(swap, services), pair_of, [*pair_of, compared.panel], **TOLD)


class Compared(NamedTuple):
    """The comparison of two policies and the buttons that ask for it."""

    button: gr.Button
    swap: gr.Button
    panel: gr.HTML


def _laid_out() -> tuple[Seen, Chosen, Compared]:
    markup("<h3>Board</h3>", elem_id="board-head")
    with gr.Row(elem_id="board-bar"):
        judge = gr.Dropdown([], label="Judged by", elem_id="board-judge", min_width=180)
        reference = gr.Dropdown([CHAMPION], value="", label="Reference", elem_id="board-reference", min_width=180)
    table = markup(elem_id="board-strengths")
    with gr.Row(elem_id="board-plots"):
        with gr.Column(min_width=300):
            wins = picker("board-wins")
        with gr.Column(min_width=300):
            legend = markup(elem_id="board-distance-head")
            plot = gr.Plot(show_label=False, visible=False, elem_id="board-distance", min_width=280)
            figures = markup(elem_id="board-distance-figures")
    with gr.Row(elem_id="board-pair-bar"):
        first = gr.Dropdown([], label="Policy", elem_id="pair-first", min_width=180)
        second = gr.Dropdown([], label="Over", elem_id="pair-second", min_width=180)
        button = gr.Button("Compare", elem_id="pair-compare", min_width=120)
        turned = gr.Button("Swap", elem_id="pair-swap", min_width=96)
    panel = markup(elem_id="board-pair")
    seen = Seen(judge, table, wins, legend, plot, figures, gr.State(""))
    return seen, Chosen(reference, first, second), Compared(button, turned, panel)
