"""The head of the Overview: the round, its next step, what is known about it, and what can be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feedback.types import RecipeState, RoundState
from studio.page.commands import on_the_page
from studio.page.html import Html, badge, element, notice
from studio.page.text import ago
from studio.page.views.gate import reasons_list
from studio.page.views.overview.next_step import act_button, buttons, next_step, waits_for_a_person
from studio.page.views.overview.picture import picture
from studio.page.worker_notice import no_worker
from training.evaluation.gate import Answer, Reason

_TONES = {
    RecipeState.active: "busy",
    RecipeState.paused: "warn",
    RecipeState.finished: "good",
    RecipeState.cancelled: "neutral",
}
_SKIPS = {
    RoundState.filling: "Skip to labeling with the pairs there are",
    RoundState.labeling: "Skip to training on what is judged",
    RoundState.evaluating: "Skip to the gate with what is measured",
}
_WELCOME = (
    "RLHF Studio trains a language model on what people prefer.",
    "In each round the present policy writes pairs of replies, people (or a rule) choose the better reply of each "
    "pair, and a new policy is trained on their choices.",
    "The new policy is then compared with the present one on held-out prompts, and a gate states with confidence "
    "intervals whether it may take over.",
)


def panel(overview: Mapping[str, Any], now: datetime) -> Html:
    """The head of the Overview."""
    recipe = overview["recipe"]
    if recipe is None:
        return _welcome(overview)
    waiting = recipe["state"] == RecipeState.active and not waits_for_a_person(recipe)
    return element(
        "div",
        _head(recipe, now),
        no_worker() if waiting and not overview["worker"] else "",
        _next(overview),
        picture(recipe),
        _gate(recipe),
        _acts(recipe),
        class_="overview-panel",
        data_run="overview",
    )


def _welcome(overview: Mapping[str, Any]) -> Html:
    sentences = [element("p", words) for words in _WELCOME]
    champion = overview["champion"]
    serves = f"The first round starts from {champion}." if champion else "No policy serves yet."
    return element(
        "div",
        element("h2", "Welcome"),
        *sentences,
        buttons(next_step(overview)),
        element("p", serves, class_="quiet"),
        class_="overview-welcome",
    )


def _head(recipe: Mapping[str, Any], now: datetime) -> Html:
    state = RecipeState(recipe["state"])
    since = ago(datetime.fromisoformat(recipe["since"]), now)
    return element(
        "div",
        element("h2", recipe["name"]),
        badge(state.value, _TONES[state]),
        element("span", f"Round {recipe['round']} of {recipe['of']}", class_="round-number"),
        element("span", f"{recipe['round_state']}, entered {since}", class_="quiet"),
        class_="detail-head",
    )


def _next(overview: Mapping[str, Any]) -> Html:
    recipe, step = overview["recipe"], next_step(overview)
    told = [element("p", on_the_page(sentence)) for sentence in recipe["guidance"]]
    return element(
        "section",
        element("div", element("h3", step.title), *told, class_="step-words"),
        buttons(step, recipe["id"]),
        class_="next-step",
        aria_label="Next step",
    )


def _gate(recipe: Mapping[str, Any]) -> Html:
    """What the gate found of the last round's policy, sentence by sentence."""
    gate = recipe["rounds"][-1]["evidence"].get("gate")
    if not gate:
        return Html("")
    reasons = [Reason(one["question"], Answer(one["answer"]), one["words"]) for one in gate["reasons"]]
    words = f"What the gate found: {gate['verdict']}"
    is_open = recipe["round_state"] == RoundState.gate
    return element(
        "details", element("summary", words), reasons_list(reasons), data_part="gate", open=is_open, class_="gate-found"
    )


def _acts(recipe: Mapping[str, Any]) -> Html:
    """What can be done to the recipe beside its next step."""
    state, stage = RecipeState(recipe["state"]), RoundState(recipe["round_state"])
    offered = []
    if state is RecipeState.active:
        offered.append(("Pause", "pause"))
    if not state.is_terminal and stage in _SKIPS:
        offered.append((_SKIPS[stage], "skip"))
    offered.append(("Fork with other settings", "fork"))
    if not state.is_terminal:
        offered.append(("Start another recipe", "start"))
    made = [act_button(words, act, recipe["id"]) for words, act in offered]
    made += [] if state.is_terminal else [_cancel(recipe)]
    return element("div", *made, class_="recipe-acts", role="group", aria_label=f"What can be done to {recipe['name']}")


def _cancel(recipe: Mapping[str, Any]) -> Html:
    """The question before a recipe is cancelled, under its button.

    The browser opens and closes it, so that neither a refresh nor an answer that comes late takes it away.
    """
    asked = notice(
        f"Cancel {recipe['name']}?",
        "Its runs end and its open pairs are withdrawn. Judgments, datasets and policies stay.",
        tone="warn",
    )
    yes = act_button("Yes, cancel it", "cancel", recipe["id"])
    no = element("button", "No, go on", type="button", data_close=True, class_="button button-plain")
    return element(
        "details",
        element("summary", "Cancel", class_="button button-plain"),
        element("div", asked, element("div", yes, no, class_="step-buttons")),
        data_part=f"cancel {recipe['id']}",
        class_="question",
    )
