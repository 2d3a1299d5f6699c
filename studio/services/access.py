"""Who may do what: an act is a method with the role it needs, checked and written to the audit log at every call.

A class of acts is bound to the person who asks. A public method without ``@act`` raises TypeError when its class is
defined, so every method that can be called has a role.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from feedback.errors import NotAllowed
from feedback.store.people.audit import save_event
from feedback.types import UserRole
from studio.identity import LOCAL, Person

if TYPE_CHECKING:
    from studio.services.facade import Shared

S = TypeVar("S", bound="Acts")
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Rule:
    """The least role an act needs; ``audit`` is what the audit log calls it, None for what changes nothing."""

    role: UserRole
    audit: str | None = None


def act(
    role: UserRole, audit: str | None = None, *, about: str | None = None, detail: str | tuple[str, ...] = ()
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Make a method an act.

    Args:
        role: The least role it needs.
        audit: What the audit log calls it. Default: it changes nothing and is not written down.
        about: The argument that names what was acted on. Default: the id, version or summary of what is returned.
        detail: Arguments that the audit log keeps as well, each under its own name, if they are neither None nor False.

    Raises:
        NotAllowed: By the method, when the role of the person who asks does not cover ``role``.
    """

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        subject = _reader(method, about) if about else None
        names = (detail,) if isinstance(detail, str) else detail
        kept = {name: _reader(method, name) for name in names}

        @wraps(method)
        def checked(self: S, /, *values: P.args, **named: P.kwargs) -> R:
            self.require(checked)
            result = method(self, *values, **named)
            if audit is not None:
                found = subject(values, named) if subject else _identity(result)
                given = {name: read(values, named) for name, read in kept.items()}
                more = {
                    name: str(value)[:200] for name, value in given.items() if not (value is None or value is False)
                }
                save_event(self.db, self.person.name, audit, str(found or "")[:200], **more)
            return result

        checked.rule = Rule(role, audit)  # type: ignore[attr-defined]
        return checked

    return decorate


def _identity(result: object) -> object:
    """What names a result: its id, the version of a setting, or for several things at once their summary."""
    return getattr(result, "id", None) or getattr(result, "version", None) or getattr(result, "summary", None)


def _reader(method: Callable[..., Any], name: str) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """How to read an argument of a method from the values of a call; resolved once, for calls are many."""
    parameters = list(inspect.signature(method).parameters.values())[1:]  # without self
    place = [parameter.name for parameter in parameters].index(name)
    default = parameters[place].default

    def read(values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return values[place] if place < len(values) else named.get(name, default)

    return read


class Acts:
    """What one person may do with one noun. ``shared`` is what the acts of all persons have in common."""

    def __init__(self, shared: Shared, person: Person) -> None:
        self.shared = shared
        self.home = shared.home
        self.db = shared.db
        self.person = person

    def __init_subclass__(cls) -> None:
        open_acts = [name for name, value in vars(cls).items() if inspect.isfunction(value) and _is_open(name, value)]
        if open_acts:
            raise TypeError(f"{cls.__name__}.{open_acts[0]} has no role: decorate it with @act(...).")

    def require(self, wanted: Callable[..., Any]) -> None:
        """Refuse what the person may not do, and write the refusal down; each act asks this first.

        Raises:
            NotAllowed: When the person's role does not cover that of the act.
        """
        person, rule = self.person, rule_of(wanted)
        if person.role.covers(rule.role):
            return
        self.note_refusal(wanted.__name__, rule.role)
        raise NotAllowed(
            f"{person.name} is {_with_article(person.role)} and may not do this; it needs "
            f"{_with_article(rule.role)}. An admin can change roles: `studio users role NAME ROLE`."
        )

    def note_refusal(self, act_name: str, needed: UserRole) -> None:
        """Write down that the person was refused an act, or what was asked of it."""
        name = f"{type(self).__name__.lower()}.{act_name}"
        save_event(self.db, self.person.name, "refused", name, role=self.person.role.value, needed=needed.value)

    def speaker(self, asked: str) -> str:
        """Under which name somebody acts: their own once they are signed in, whatever name was asked for.

        Raises:
            NotAllowed: When a person who is signed in asks for the name of somebody else.
        """
        person = self.person
        if person == LOCAL:
            return asked
        if asked not in (LOCAL.name, person.name):
            raise NotAllowed(f"You are signed in as {person.name!r} and act under that name, not as {asked!r}.")
        return person.name


def rule_of(method: Callable[..., Any]) -> Rule:
    """The rule that ``@act`` gave a method."""
    rule: Rule = method.rule  # type: ignore[attr-defined]
    return rule


def _is_open(name: str, method: Callable[..., Any]) -> bool:
    return not name.startswith("_") and not hasattr(method, "rule")


def _with_article(role: UserRole) -> str:
    return f"an {role.value}" if role.value[0] in "aeiou" else f"a {role.value}"
