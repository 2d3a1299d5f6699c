"""Overview: the state of the round, the next step, and the results of earlier rounds.

The page looks every few seconds while the tab is open. What has not changed is not sent, so nothing that is read moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback.types import now
from studio.page.html import escape
from studio.page.tabs import recipe_form
from studio.page.tabs.recipe_form import RecipeForm
from studio.page.tabs.wiring import QUICK, TOLD, bind, markup, on_pick, picker
from studio.page.views.overview import charts as charts_view
from studio.page.views.overview import lists as lists_view
from studio.page.views.overview import panel as panel_view
from studio.services.facade import Services

LOOK_SECONDS = 3.0
"""Seconds between two refreshes while the tab is open."""
_DONE = {
    "pause": "{name} is paused: runs under way go on to their end, and nothing new begins.",
    "resume": "{name} goes on.",
    "promote": "The policy is promoted at the worker's next look.",
    "hold": "The policy is held.",
    "cancel": "{name} is cancelled.",
}

Seen = tuple[Any, ...] | None
"""What each part shows: only parts that differ are sent again."""


class View(NamedTuple):
    """The parts of the tab that show the state of the home, in the order in which ``look`` gives them."""

    panel: gr.HTML
    running: gr.HTML
    champions: gr.HTML
    rates: gr.HTML
    rate_plot: gr.Plot
    days: gr.HTML
    day_plot: gr.Plot
    history: gr.HTML
    recipes: gr.HTML


def look(services: Services, key: str | None, seen: Seen = None) -> tuple[Any, ...]:
    """What has changed since the last look, then what is seen now."""
    overview, at = services.rounds.overview(key), now()
    recipe = overview["recipe"]
    rates, judgments = charts_view.win_rates(recipe), overview["judgments"]
    drawn: list[tuple[object, Callable[[], Any]]] = [
        _as_it_is(panel_view.panel(overview, at)),
        _as_it_is(lists_view.running(overview)),
        _as_it_is(lists_view.champions(overview, at)),
        _as_it_is(charts_view.win_rate_words(rates)),
        (rates, lambda: _plot(charts_view.win_rate_figure(rates))),
        _as_it_is(charts_view.judgments_words(judgments)),
        (judgments, lambda: _plot(charts_view.judgments_figure(judgments))),
        _as_it_is(lists_view.history(recipe, at)),
        _as_it_is(lists_view.recipes(overview["recipes"], key, at)),
    ]
    before = seen or (None,) * len(drawn)
    sent = [gr.skip() if mark == old else make() for (mark, make), old in zip(drawn, before, strict=True)]
    return *sent, tuple(mark for mark, _ in drawn)


def _as_it_is(value: str) -> tuple[object, Callable[[], Any]]:
    return value, lambda: value


def _plot(figure: Any) -> gr.Plot:
    return gr.Plot(value=figure, visible=figure is not None)


def arrive(services: Services, key: str | None) -> tuple[Any, ...]:
    """Everything, and the timer that keeps it up to date while the tab is open."""
    return *look(services, key), gr.Timer(active=True)


def leave() -> gr.Timer:
    """Look no more: another tab is open."""
    return gr.Timer(active=False)


def choose(services: Services, key: str) -> tuple[Any, ...]:
    """Show another recipe."""
    return *_fresh(services, key), key


def act(services: Services, names: Sequence[str], pick: str, key: str | None) -> tuple[Any, ...]:
    """Carry out the act of a button; ``pick`` names the act and the recipe."""
    wanted, _, recipe_id = pick.partition(" ")
    if wanted in ("start", "fork"):
        forked = services.rounds.get_recipe(recipe_id) if wanted == "fork" else None
        return *_fresh(services, key), *recipe_form.opened(services, names, forked)
    told = _carry_out(services, wanted, recipe_id)
    if told:
        gr.Info(str(escape(told)))
    return *_fresh(services, key), *_unchanged(names)


def _carry_out(services: Services, wanted: str, recipe_id: str) -> str:
    """Carry out an act on a recipe; returns the message to show."""
    rounds = services.rounds
    name = next((one["name"] for one in rounds.list_recipes() if one["id"] == recipe_id), recipe_id)
    if wanted == "skip":
        return f"{name} waits no longer: {rounds.skip(recipe_id)}."
    if wanted == "pause":
        rounds.pause(recipe_id)
    elif wanted == "resume":
        rounds.resume(recipe_id)
    elif wanted == "promote":
        rounds.decide(recipe_id, "promote")
    elif wanted == "hold":
        rounds.decide(recipe_id, "hold")
    elif wanted == "cancel":
        rounds.cancel(recipe_id)
    return _DONE.get(wanted, "").format(name=name)


def start(services: Services, names: Sequence[str], forked: str | None, *values: Any) -> tuple[Any, ...]:
    """Start the recipe that the form describes, and show it."""
    name = str(values[0] or "").strip()
    other = services.rounds.get_recipe(forked) if forked else None
    settings = recipe_form.settings_of(names, values, other)
    made = services.rounds.fork(forked, name, settings) if forked else services.rounds.start(name, settings)
    gr.Info(str(escape(f"{made.name} is started: the worker draws its first pairs.")))
    return *_fresh(services, made.id), made.id, *recipe_form.closed(names)


def close(_services: Services, names: Sequence[str]) -> list[Any]:
    """Close the form; nothing is started."""
    return recipe_form.closed(names)


def _fresh(services: Services, key: str | None) -> tuple[Any, ...]:
    """Everything anew; what is seen is forgotten, for a look under way may be shown after this."""
    *parts, _ = look(services, key)
    return *parts, None


def _unchanged(names: Sequence[str]) -> list[Any]:
    return [gr.skip() for _ in range(len(names) + 3)]


def build_tab(services: Services, tab: gr.Tab) -> gr.Timer:
    """Lay the tab out and connect it; returns the timer that stops when another tab is opened."""
    key, seen = gr.State(None), gr.State(None)
    panel = picker("overview-round")
    form = recipe_form.lay()
    view = _lay_view(panel)
    timer = gr.Timer(LOOK_SECONDS, active=False)
    shown = [*view, seen]

    tab.select(bind(arrive, services), [key], [*shown, timer], **QUICK)
    timer.tick(bind(look, services), [key, seen], shown, **QUICK)
    on_pick(view.recipes, choose, services, [], [*shown, key])
    _connect_form(services, form, panel, key, shown)
    return timer


def _connect_form(services: Services, form: RecipeForm, panel: gr.HTML, key: gr.State, shown: list[Any]) -> None:
    names = form.names

    def acting(services: Services, pick: str, *values: Any) -> tuple[Any, ...]:
        return act(services, names, pick, *values)

    on_pick(panel, acting, services, [key], [*shown, *form.written()])
    filled = [form.forked, *form.fields.values()]
    form.start.click(bind(start, services, names), filled, [*shown, key, *form.written()], **TOLD)
    form.close.click(bind(close, services, names), None, form.written(), **QUICK)


def _lay_view(panel: gr.HTML) -> View:
    with gr.Row(elem_id="overview-cards"):
        running, champions = markup(elem_id="overview-now"), markup(elem_id="overview-champions")
    with gr.Row(elem_id="overview-plots"):
        with gr.Column(min_width=320):
            rates = markup(elem_id="overview-rates")
            rate_plot = gr.Plot(show_label=False, visible=False, elem_id="rate-plot")
        with gr.Column(min_width=320):
            days = markup(elem_id="overview-days")
            day_plot = gr.Plot(show_label=False, visible=False, elem_id="day-plot")
    history = markup(elem_id="overview-history")
    return View(panel, running, champions, rates, rate_plot, days, day_plot, history, picker("overview-recipes"))
