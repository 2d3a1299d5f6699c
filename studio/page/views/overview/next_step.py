"""The one next step of a home: what it is, why, and the button that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedback.types import RecipeState, RoundState
from studio.page.html import Html, element

PRIMARY, PLAIN = "button-primary", "button-plain"


@dataclass(frozen=True)
class NextStep:
    """What to do: a title, and buttons in their order, the first of which is filled.

    A button is its words with ``act:NAME``, an act of the Overview tab, or with an address of the page such as
    ``#label``.
    """

    title: str
    buttons: tuple[tuple[str, str], ...]


START = ("Start a round", "act:start")


def next_step(overview: Mapping[str, Any]) -> NextStep:
    """The step that the present state asks for; without a recipe under way, starting one."""
    recipe = overview["recipe"]
    if recipe is None:
        return NextStep("No round yet", (START,))
    if recipe["state"] == RecipeState.paused:
        return NextStep("The rounds are paused", (("Resume", "act:resume"),))
    if recipe["state"] != RecipeState.active:
        return NextStep(f"{recipe['name']} is {recipe['state']}", (START,))
    if recipe["round_state"] == RoundState.gate:
        return _at_the_gate(recipe)
    if waits_for_annotators(recipe):
        return _labeling(recipe)
    ready = recipe["pool"]["open"]
    if recipe["round_state"] == RoundState.filling and recipe["settings"]["annotator"] == "people" and ready:
        return NextStep(f"{ready:,} pairs are ready to judge, more are being drawn", (("Label pairs", "#label"),))
    return _waiting(recipe)


def waits_for_a_person(recipe: Mapping[str, Any]) -> bool:
    """Whether annotators, or whoever decides at the gate, take the round of a recipe further, and not the worker."""
    evidence = recipe["rounds"][-1]["evidence"]
    asked = recipe["settings"]["promote"] == "ask" and "gate" in evidence and "decision" not in evidence
    return waits_for_annotators(recipe) or (recipe["round_state"] == RoundState.gate and asked)


def waits_for_annotators(recipe: Mapping[str, Any]) -> bool:
    """Whether the round of a recipe waits for judgments of people."""
    if recipe["round_state"] == RoundState.labeling:
        return recipe["settings"]["annotator"] == "people"
    comparing = recipe["round_state"] == RoundState.evaluating and recipe["people_compare"]
    return comparing and active_run(recipe) is None


def active_run(recipe: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run of the last round that is queued or under way, with what it is for."""
    over = ("succeeded", "failed", "cancelled", "interrupted")
    return next((run for run in recipe["rounds"][-1]["runs"] if run["state"] not in over), None)


def _labeling(recipe: Mapping[str, Any]) -> NextStep:
    pool = recipe["pool"]
    if recipe["round_state"] == RoundState.labeling and not pool["open"] and pool["disputed"]:
        return NextStep("Annotators disagree on the pairs that are left", (("Resolve disputes", "#review"),))
    if recipe["round_state"] == RoundState.labeling:
        left = max(int(recipe["settings"]["pairs"]) - pool["judged"], 0)
        return NextStep(f"{left:,} pairs are left to judge", (("Label pairs", "#label"),))
    return NextStep("People compare the new policy with the champion", (("Label pairs", "#label"),))


def _at_the_gate(recipe: Mapping[str, Any]) -> NextStep:
    if recipe["settings"]["promote"] != "ask":
        return NextStep("The gate decides", ())
    policy = recipe["rounds"][-1]["evidence"].get("policy", "the new policy")
    decided = recipe["rounds"][-1]["evidence"].get("decision")
    if decided:
        return NextStep(f"Decided: {decided['choice']} {policy}", ())
    choices = (("Promote", "act:promote"), ("Hold", "act:hold"))
    verdict = (recipe["rounds"][-1]["evidence"].get("gate") or {}).get("verdict")
    if verdict is None:
        return NextStep("The gate decides", ())
    return NextStep(f"Promote {policy}, or hold it?", choices if verdict == "PROMOTE" else choices[::-1])


def _waiting(recipe: Mapping[str, Any]) -> NextStep:
    run = active_run(recipe)
    titles = {
        RoundState.filling: "The policy is drawing replies",
        RoundState.labeling: "The rule judges",
        RoundState.evaluating: "The new policy is measured",
    }
    title = titles.get(RoundState(recipe["round_state"]), "A new policy is trained")
    if run is None:
        return NextStep(f"{title}: nothing to do", ())
    return NextStep(f"{title}: nothing to do", (("Open the run", f"#train/{run['id']}"),))


def buttons(step: NextStep, recipe_id: str = "") -> Html:
    """The buttons of a step about a recipe; one filled, the others plain."""
    made = [
        _button(words, target, recipe_id, PLAIN if place else PRIMARY)
        for place, (words, target) in enumerate(step.buttons)
    ]
    return element("div", *made, class_="step-buttons") if made else Html("")


def _button(words: str, target: str, recipe_id: str, look: str) -> Html:
    kind, _, act = target.partition(":")
    if kind == "act":
        return act_button(words, act, recipe_id, look)
    return element("a", words, href=target, class_=f"button {look}")


def act_button(words: str, act: str, recipe_id: str, look: str = PLAIN) -> Html:
    """A button that the Overview tab hears as an act and the recipe it is done to, with a space between."""
    return element("button", words, type="button", data_pick=f"{act} {recipe_id}", class_=f"button {look}")
