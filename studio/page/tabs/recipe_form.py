"""The form of a recipe on the Overview tab: what its rounds do, with defaults that suit a first round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from studio.page.html import Html, element
from studio.page.tabs.wiring import markup
from studio.page.views import policies as policies_view
from studio.services.facade import Services
from training.evaluation.people import PEOPLE
from training.methods import METHODS
from training.rounds.recipe import ROUND_REWARD, RecipeSettings

DEFAULTS = RecipeSettings()
_WHOLE = ("rounds", "pairs", "opinions", "prompts", "seed")
_LISTS = ("tags", "benchmarks")


class RecipeForm(NamedTuple):
    """The form; ``fields`` are in the order of their settings in ``names``, the name of the recipe first."""

    column: gr.Column
    title: gr.HTML
    forked: gr.State
    fields: dict[str, gr.components.Component]
    start: gr.Button
    close: gr.Button

    @property
    def names(self) -> tuple[str, ...]:
        """The settings behind the fields, in order."""
        return tuple(self.fields)

    def written(self) -> list[Any]:
        """Everything that ``opened`` and ``closed`` write, in order."""
        return [self.column, self.title, self.forked, *self.fields.values()]


def lay() -> RecipeForm:
    """Lay the form out, closed."""
    with gr.Column(visible=False, elem_id="recipe-form") as column:
        title = markup(elem_id="recipe-title")
        with gr.Group():
            fields = _simple()
            with gr.Accordion("More settings", open=False, elem_id="recipe-more"):
                fields |= _further()
        with gr.Row(elem_id="recipe-bar"):
            start = gr.Button("Start", variant="primary", elem_id="recipe-start")
            close = gr.Button("Close", elem_id="recipe-close")
    return RecipeForm(column, title, gr.State(None), fields, start, close)


def _simple() -> dict[str, gr.components.Component]:
    with gr.Row(elem_classes="settings-grid"):
        name = gr.Textbox(label="Name", info="Its datasets and policies begin so", elem_id="recipe-name", max_lines=1)
        pairs = _number("pairs", "Pairs", "Judged in a round before it trains", 1)
        rounds = _number("rounds", "Rounds", "That follow each other", 1)
        annotator = _choice("Who labels", "People on the Label tab, or a rule", "recipe-annotator")
        methods = gr.Dropdown(
            sorted(name for name, method in METHODS.items() if method.settings.MAKES == "policy"),
            value=[step.method for step in DEFAULTS.methods],
            multiselect=True,
            label="Methods",
            info="Trainings of a round, one after the other",
            elem_id="recipe-methods",
        )
        evaluator = _choice("Who compares", "The new policy with the champion", "recipe-evaluator")
        promote = gr.Radio(
            [("A person", "ask"), ("The gate", "auto")],
            value=DEFAULTS.promote,
            label="Who promotes",
            info="After the gate's verdict",
            elem_id="recipe-promote",
        )
        tags = gr.Dropdown(
            [], value=[], multiselect=True, label="Tags", info="Only prompts with all of them", elem_id="recipe-tags"
        )
    return {
        "name": name, "pairs": pairs, "rounds": rounds, "annotator": annotator, "methods": methods,
        "evaluator": evaluator, "promote": promote, "tags": tags,
    }  # fmt: skip


def _further() -> dict[str, gr.components.Component]:
    with gr.Row(elem_classes="settings-grid"):
        policy = gr.Dropdown([], label="Start from", info="Default: the champion", elem_id="recipe-policy")
        opinions = _number("opinions", "Opinions", "Judgments that each pair is to get", 1)
        prompts = _number("prompts", "Held-out prompts", "Of a comparison", 2)
        noise = gr.Number(
            DEFAULTS.noise, minimum=0, maximum=0.5, step=0.05, label="Noise", info="Share of a rule's verdicts flipped"
        )
        reward = gr.Radio(
            [("Where one is needed", "auto"), ("In each round", "always")],
            value=DEFAULTS.reward_model,
            label="Reward model",
            info="When a round trains one",
        )
        benchmarks = gr.Textbox(
            label="Benchmarks", info="Tasks that must not get worse, separated by commas", max_lines=1
        )
        seed = _number("seed", "Seed", "Of everything drawn", 0)
    return {
        "policy": policy, "opinions": opinions, "prompts": prompts, "noise": noise, "reward_model": reward,
        "benchmarks": benchmarks, "seed": seed,
    }  # fmt: skip


def _number(setting: str, label: str, info: str, least: int) -> gr.Number:
    value = getattr(DEFAULTS, setting)
    return gr.Number(value, precision=0, minimum=least, label=label, info=info, elem_id=f"recipe-{setting}")


def _choice(label: str, info: str, elem_id: str) -> gr.Dropdown:
    # A rule with a part to fill in, such as keyword:WORD, is typed
    return gr.Dropdown([], label=label, info=info, elem_id=elem_id, allow_custom_value=True)


def opened(services: Services, names: Sequence[str], recipe: Mapping[str, Any] | None = None) -> list[Any]:
    """The form opened, with defaults or with the settings of the recipe that is forked."""
    taken = {one["name"] for one in services.rounds.list_recipes()}
    stem = recipe["name"] if recipe else "loop"
    number = next(number for number in range(2 if recipe else 1, len(taken) + 3) if f"{stem}-{number}" not in taken)
    settings = recipe["settings"] if recipe else DEFAULTS.model_dump(mode="json")
    values = {**settings, "name": f"{stem}-{number}", "evaluator": settings["evaluator"] or ""}
    values |= {"methods": [step["method"] for step in settings["methods"]], "policy": None}
    values["benchmarks"] = ", ".join(settings["benchmarks"])
    choices = _choices(services)
    fields = [gr.update(value=values[name], **choices.get(name, {})) for name in names]
    return [gr.update(visible=True), _title(recipe), recipe["id"] if recipe else None, *fields]


def _choices(services: Services) -> dict[str, dict[str, Any]]:
    rules = [(f"rule: {rule}", rule) for rule in services.policies.oracle_rules()]
    people = ("people", PEOPLE)
    policies = [one for one in services.policies.list_policies() if not one.policy.is_endpoint]
    judges = [("whoever labels", ""), people, ("the reward model of the round", ROUND_REWARD), *rules]
    return {
        "annotator": {"choices": [people, *rules]},
        "evaluator": {"choices": judges},
        "tags": {"choices": [tag for tag in services.prompts.count_tags() if tag]},
        "policy": {"choices": policies_view.policy_choices(policies)},
    }


def _title(recipe: Mapping[str, Any] | None) -> Html:
    if recipe is None:
        return element("h3", "Start a round")
    words = "It starts from the policy that the newest round of the other started from; what is not shown here is kept."
    return element("div", element("h3", f"Fork of {recipe['name']}"), element("p", words, class_="quiet"))


def closed(names: Sequence[str]) -> list[Any]:
    """The form closed; what was typed into it stays until it is opened again."""
    return [gr.update(visible=False), gr.skip(), None, *(gr.skip() for _ in names)]


def settings_of(names: Sequence[str], values: Sequence[Any], forked: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the form says as the settings of a recipe; a field left empty is left out.

    Methods that a fork keeps by name keep their own settings too.
    """
    given = {
        name: value for name, value in zip(names, values, strict=True) if value not in (None, "", []) or name in _LISTS
    }
    given.pop("name", None)
    given |= {name: int(given[name]) for name in _WHOLE if name in given}
    given["benchmarks"] = [task.strip() for task in str(given["benchmarks"] or "").split(",") if task.strip()]
    given["tags"] = list(given["tags"] or [])
    known = {step["method"]: step for step in (forked or {"settings": {"methods": []}})["settings"]["methods"]}
    methods = given.pop("methods", [])
    given["methods"] = [known.get(method, {"method": method}) for method in methods]
    given.setdefault("evaluator", None)
    return given
