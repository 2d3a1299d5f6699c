"""Who may do what: one table from the acts of ``Services`` to the role each needs, and the door that reads it.

``Services.acting_as`` gives a route or a tab the services as one person sees them. Each call passes here first: the
role is checked, the annotator becomes the person who is signed in, and what changes something is written to the
audit log. An act that is not in the table is for admins alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from feedback.database.engine import Database
from feedback.errors import NotAllowed
from feedback.store.people.audit import save_event
from feedback.types import UserRole
from studio.identity import LOCAL, Person


@dataclass(frozen=True)
class Rule:
    """The least role an act needs; ``verb`` is what the audit log calls it, None for what changes nothing.

    ``about`` names the argument that says what was acted on; without it the id of what came of it is written.
    ``speaker`` names the argument that says who does it: it is filled in with whoever is signed in.
    """

    role: UserRole
    verb: str | None = None
    about: str | None = None
    speaker: str = "annotator"


_ANNOTATOR, _REVIEWER, _RESEARCHER, _ADMIN = UserRole

RULES: dict[str, Rule] = {
    # Judgments keep their own record (who, when, every revision), so labeling is not written a second time.
    "lease_task": Rule(_ANNOTATOR),
    "lease_with_guidelines": Rule(_ANNOTATOR),
    "current_task": Rule(_ANNOTATOR),
    "judge": Rule(_ANNOTATOR),
    "undo": Rule(_ANNOTATOR),
    "label_counts": Rule(_ANNOTATOR),
    "last_fill": Rule(_ANNOTATOR),
    "refill_soon": Rule(_ANNOTATOR),
    "deck": Rule(_ANNOTATOR),
    "save_draft": Rule(_ANNOTATOR),
    "missing_remarks": Rule(_ANNOTATOR),
    "add_remarks": Rule(_ANNOTATOR),
    "draft_of": Rule(_ANNOTATOR),
    "annotator_figures": Rule(_ANNOTATOR),
    "guidelines": Rule(_ANNOTATOR),
    "save_guidelines": Rule(_RESEARCHER, "guidelines.save"),
    "checks": Rule(_REVIEWER),
    "change_checks": Rule(_RESEARCHER, "checks.save", speaker="author"),
    "needs_dataset": Rule(_RESEARCHER),
    "refill": Rule(_RESEARCHER),
    "starter_requests": Rule(_ANNOTATOR),
    "whoami": Rule(_ANNOTATOR),
    "change_own_password": Rule(_ANNOTATOR),
    "fill_pool": Rule(_RESEARCHER, "pool.fill"),
    "add_prompts": Rule(_RESEARCHER, "prompts.add"),
    "list_prompts": Rule(_RESEARCHER),
    "generate": Rule(_RESEARCHER, "policy.reply", "policy"),
    "feedback_counts": Rule(_REVIEWER),
    "preview_counts": Rule(_RESEARCHER),
    "freeze": Rule(_RESEARCHER, "dataset.freeze", "name"),
    "list_datasets": Rule(_RESEARCHER),
    "get_dataset": Rule(_RESEARCHER),
    "twin_of": Rule(_RESEARCHER),
    "preview_pairs": Rule(_RESEARCHER),
    "suggest_dataset_name": Rule(_RESEARCHER),
    "export": Rule(_RESEARCHER, "dataset.export", "key"),
    "count_dropped": Rule(_RESEARCHER),
    "format_names": Rule(_RESEARCHER),
    "training_methods": Rule(_RESEARCHER),
    "describe": Rule(_RESEARCHER),
    "submit_run": Rule(_RESEARCHER, "run.submit"),
    "list_runs": Rule(_RESEARCHER),
    "page_of_runs": Rule(_RESEARCHER),
    "waiting_runs": Rule(_RESEARCHER),
    "get_run": Rule(_RESEARCHER),
    "names": Rule(_RESEARCHER),
    "any_run_active": Rule(_RESEARCHER),
    "run_metrics": Rule(_RESEARCHER),
    "runs_with_curves": Rule(_RESEARCHER),
    "log_tail": Rule(_RESEARCHER),
    "cancel_run": Rule(_RESEARCHER, "run.cancel", "run_id"),
    "rollouts": Rule(_RESEARCHER),
    "annotate_run": Rule(_RESEARCHER, "run.annotate", "run_id"),
    "resume_run": Rule(_RESEARCHER, "run.resume", "run_id"),
    "list_policies": Rule(_RESEARCHER),
    "get_policy": Rule(_RESEARCHER),
    "champion_name": Rule(_RESEARCHER),
    "promote": Rule(_RESEARCHER, "policy.promote", "key"),
    "rebase": Rule(_RESEARCHER, "policy.rebase", "key"),
    "lineage": Rule(_RESEARCHER),
    "list_win_rates": Rule(_RESEARCHER),
    "list_reward_models": Rule(_RESEARCHER),
    "oracle_rules": Rule(_RESEARCHER),
    "reward_functions": Rule(_RESEARCHER),
    "evaluate": Rule(_RESEARCHER, "run.submit"),
    # Parts of the services that other rooms of the studio bring along.
    "in_turn": Rule(_ANNOTATOR),
    "extend": Rule(_ANNOTATOR),
    "keep": Rule(_ANNOTATOR),
    "leave": Rule(_ANNOTATOR),
    "worker_is_alive": Rule(_ANNOTATOR),
    "release": Rule(_ANNOTATOR),
    "last_traceback": Rule(_RESEARCHER),
    "sample_replies": Rule(_RESEARCHER),
    "reviewing.messages_for": Rule(_ANNOTATOR),
    "reviewing.report": Rule(_REVIEWER),
    "reviewing.list_evidence": Rule(_REVIEWER, speaker=""),
    "reviewing.lineage": Rule(_RESEARCHER),
    "reviewing.exclude": Rule(_REVIEWER, "judgment.exclude", "judgment_id", speaker="actor"),
    "reviewing.restore": Rule(_REVIEWER, "judgment.restore", "judgment_id", speaker="actor"),
    "reviewing.requeue": Rule(_REVIEWER, "matchup.requeue", "matchup_id", speaker="actor"),
    "reviewing.message": Rule(_REVIEWER, "annotator.message", "annotator", speaker="actor"),
    "reviewing.list_acts": Rule(_REVIEWER),
    "reviewing.next_dispute": Rule(_REVIEWER, speaker="reviewer"),
    "reviewing.count_disputes": Rule(_REVIEWER),
    "reviewing.list_disputed": Rule(_REVIEWER),
    "reviewing.make_gold": Rule(_REVIEWER, "matchup.gold", "matchup_id"),
    "reviewing.add_batch": Rule(_RESEARCHER, "batch.add"),
    "reviewing.set_priority": Rule(_RESEARCHER, "batch.priority", "key"),
    "reviewing.list_batches": Rule(_REVIEWER),
    "measuring.take": Rule(_RESEARCHER, "run.submit", "tasks"),
    "measuring.opponent": Rule(_RESEARCHER),
    "measuring.list_benchmarks": Rule(_RESEARCHER),
    "measuring.list_by_people": Rule(_RESEARCHER),
    "measuring.compare": Rule(_RESEARCHER),
    "measuring.list_differing": Rule(_RESEARCHER),
    "measuring.decide": Rule(_RESEARCHER),
    # The store writes these down itself, in the transaction that does them.
    "list_users": Rule(_ADMIN),
    "add_user": Rule(_ADMIN),
    "set_user_role": Rule(_ADMIN),
    "disable_user": Rule(_ADMIN),
    "enable_user": Rule(_ADMIN),
    "new_token": Rule(_ADMIN),
    "reset_password": Rule(_ADMIN),
    "list_audit": Rule(_ADMIN),
}

HOUSE_ONLY = {"acting_as", "close"}
"""Acts of the studio itself, which no person is given."""


PARTS = {"reviewing", "measuring"}
"""Members of the services that have acts of their own; these stand in ``RULES`` as ``part.act``."""


class ActingServices:
    """The services as one person is given them; stands in for ``Services`` wherever a person is behind a call."""

    def __init__(self, services: Any, db: Database, person: Person, part: str = "") -> None:
        self._services = services
        self._db = db
        self._person = person
        self._part = part

    def __getattr__(self, name: str) -> Any:
        if name in PARTS and not self._part:
            return ActingServices(getattr(self._services, name), self._db, self._person, f"{name}.")
        act_name = self._part + name
        rule = RULES.get(act_name, Rule(UserRole.admin))
        if name in HOUSE_ONLY or not self._person.role.covers(rule.role):
            self._refuse(act_name, rule)
        method = getattr(type(self._services), name, None)
        if method is None:
            return getattr(self._services, name)

        def act(*values: Any, **named: Any) -> Any:
            given = _signature(method).bind(self._services, *values, **named)
            _speak_as(self._person, given, rule.speaker)
            result = method(*given.args, **given.kwargs)
            if rule.verb is not None:
                self._write_down(rule.verb, rule.about, given.arguments, result)
            return result

        return act

    def _refuse(self, name: str, rule: Rule) -> None:
        person = self._person
        save_event(self._db, person.name, "refused", name, role=person.role.value, needed=rule.role.value)
        raise NotAllowed(
            f"{person.name} is {_with_article(person.role)} and may not do this; it needs "
            f"{_with_article(rule.role)}. An admin can change roles: `studio users role NAME ROLE`."
        )

    def _write_down(self, verb: str, about: str | None, arguments: dict[str, Any], result: Any) -> None:
        came_of_it = getattr(result, "id", None)
        subject = str(arguments.get(about) if about else came_of_it or "")
        detail = {"method": arguments["method"]} if verb == "run.submit" and "method" in arguments else {}
        save_event(self._db, self._person.name, verb, subject[:200], **detail)


@lru_cache(maxsize=256)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _speak_as(person: Person, given: inspect.BoundArguments, speaker: str) -> None:
    """An act is done by whoever is signed in, whatever name was asked for."""
    parameters = given.signature.parameters
    if "person" in parameters:
        given.arguments["person"] = person
    if speaker in parameters and person != LOCAL:
        asked = given.arguments.get(speaker)
        if asked not in (None, LOCAL.name, person.name):
            raise NotAllowed(f"You are signed in as {person.name!r} and act under that name, not as {asked!r}.")
        given.arguments[speaker] = person.name


def _with_article(role: UserRole) -> str:
    return f"an {role.value}" if role.value[0] in "aeiou" else f"a {role.value}"
