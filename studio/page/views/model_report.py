"""A model before and as it is added: how far its examination is, what it can be used for, what became of it."""

from __future__ import annotations

from feedback.errors import StudioError
from studio.page.html import Html, badge, element, facts, join, notice, table
from studio.page.text import error_text
from training.checkpoints.registration import Added
from training.model_check.report import MethodOutlook, ModelReport
from training.plain_templates import PLAIN_TEMPLATES

OWN_TEMPLATE = ("its own", "")
_ELSEWHERE = ("base", "time of a step", "not examined")
_METHODS = {"generate": "Replies", "reward": "Reward model"}


def template_choices() -> list[tuple[str, str]]:
    """The chat templates for a dropdown, first that of the model itself."""
    return [OWN_TEMPLATE, *((name, name) for name in PLAIN_TEMPLATES)]


def examining(said: str, seconds: float) -> Html:
    """What happens to a model at the moment, and for how long it has been looked at."""
    return element(
        "div",
        badge("at work", "busy"),
        element("span", f"{said}…", class_="examining-said"),
        element("span", f"{seconds:.0f} s", class_="quiet", aria_hidden="true"),
        class_="examining",
        role="progressbar",
        aria_label=said,
    )


def report_panel(report: ModelReport) -> Html:
    """The report on a model: what works with it here and in how much memory, then what it is."""
    working = [one for one in report.methods if one.works]
    whole = len(working) == len(report.methods)
    verdict = "everything works here" if whole else f"{len(working)} of {len(report.methods)} work here"
    rows = [
        [
            _METHODS.get(one.method, one.method.upper()),
            join([_badge(one), element("span", one.reason, class_="quiet block") if one.reason else ""]),
            f"{one.needed_mb:,} MB",
            _seconds(one.step_seconds),
        ]
        for one in report.methods
    ]
    return element(
        "div",
        element(
            "div",
            element("h4", report.base),
            badge(verdict, "good" if whole else "warn" if working else "bad"),
            class_="detail-head",
        ),
        _warnings(report),
        table(("Use", "Here", "Memory", "A step"), rows, caption=f"What {report.base} can be used for here"),
        element("p", f"Time of a step: {report.timing}.", class_="quiet legend"),
        facts((_title(name), text) for name, text in report.facts().items() if name not in _ELSEWHERE),
        element("p", "Nothing was added.", class_="quiet"),
        class_="detail model-report",
    )


def added_panel(added: Added) -> Html:
    """A policy that was just added, with what was examined of its base."""
    seen, name = added.examination, added.policy.name
    if seen is None or seen.is_complete:
        done = f"Examined and in order: {', '.join(seen.examined)}." if seen is not None and seen.examined else ""
        return notice(f"{name} can reply now", done, _next(name), tone="good")
    unseen = f"Not examined: {'; '.join(seen.not_examined)}. Whether it can reply shows when it is first used."
    return notice(f"{name} was added", unseen, _next(name), tone="warn")


def failed_panel(error: StudioError) -> Html:
    """Why a model could not be examined; it stays when the toast that says so is gone."""
    return notice("That did not work", Html(error_text(error)), tone="bad")


def _next(name: str) -> str:
    return f"It does not serve yet: measure {name} against another policy below, or try it in the Playground."


def _badge(one: MethodOutlook) -> Html:
    return badge("works", "good") if one.works else badge("does not", "bad")


def _warnings(report: ModelReport) -> Html:
    lines = [f"Not examined: {'; '.join(report.not_examined)}."] if report.not_examined else []
    largest = max((one.needed_mb for one in report.methods), default=0)
    if largest > report.free_mb:
        lines.append(f"Only {report.free_mb:,} MB are free on {report.device}: less than the {largest:,} MB below.")
    return notice("Mind this", *lines, tone="warn") if lines else Html("")


def _seconds(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds:,.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]
