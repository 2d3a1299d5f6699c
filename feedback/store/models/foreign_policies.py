"""Policies that are known from imported votes: each model that a file names is one policy, however it is spelled.

A model's name elsewhere (``org/model``, ``通义千问``) may not be a policy's name here. It gets one that can be typed,
and the policy keeps the original name in ``base``, by which it is found again. Two models never share a policy, not
even when the studio's own export brings one of them from another home: where their names would become the same, the
later one carries a few digits of its name's hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlmodel import Session, col, or_, select

from feedback.errors import InvalidInput
from feedback.store.rows import in_chunks
from feedback.tables import PolicyRow
from feedback.types import CANNOT_REPLY, content_hash

_LONGEST = 80  # characters of a policy's name


class ForeignPolicies:
    """The policies of the models that one chunk of votes names; those that are not there yet are in ``new``."""

    def __init__(self, session: Session, source: str, models: Iterable[str]) -> None:
        self._source = source
        self._ids: dict[str, str] = {}
        self.new: list[dict[str, Any]] = []
        named = sorted(set(models))
        candidates = sorted({name for model in named for name in (model, *_names_for(model))})
        rows = _stored(session, candidates)
        self._taken = {row.name for row in rows}
        # A policy of this studio is meant by its name. One that an import made is meant by the model's own name.
        for row in rows:
            if not is_foreign(row.id, row.name, row.base):
                self._ids.setdefault(row.name, row.id)
        for row in rows:
            if is_foreign(row.id, row.name, row.base):
                self._ids[row.base] = row.id

    def id_of(self, model: str) -> str:
        """The id of the policy that stands for a model."""
        if model not in self._ids:
            name = next(name for name in _names_for(model) if name not in self._taken)
            self._taken.add(name)
            self._ids[model] = _id_for(name, model)
            note = f"imported with {self._source}; it replied elsewhere and {CANNOT_REPLY}"
            row = {"id": self._ids[model], "name": name, "base": model, "note": note}
            self.new.append(PolicyRow.model_validate(row).model_dump())
        return self._ids[model]


def is_foreign(policy_id: str, name: str, base: str) -> bool:
    """Whether an import made this policy, so that its ``base`` is the name of the model where it replied."""
    return policy_id in (_id_for(name, base), _id_for(name, name))


def fit_in(session: Session, row: PolicyRow) -> PolicyRow:
    """The stored policy of the model that a foreign policy from elsewhere stands for, else the row, fit to be stored.

    Raises InvalidInput where a policy of this studio's own has its name.
    """
    names = _names_for(row.base)
    rows = _stored(session, [row.base, row.name, *names])
    for known in rows:
        if known.base == row.base and is_foreign(known.id, known.name, known.base):
            return known
    own = {known.name for known in rows if not is_foreign(known.id, known.name, known.base)}
    if row.name in own:
        raise InvalidInput(f"another policy is already called {row.name!r}")
    taken = {known.name for known in rows}
    row.name = next(name for name in (row.name, *names) if name not in taken)
    row.id = _id_for(row.name, row.base)
    return row


def _stored(session: Session, names: list[str]) -> list[PolicyRow]:
    def query(part: list[str]) -> list[PolicyRow]:
        wanted = or_(col(PolicyRow.name).in_(part), col(PolicyRow.base).in_(part))
        return list(session.exec(select(PolicyRow).where(wanted)))

    return list({row.id: row for row in in_chunks(names, query)}.values())


def _id_for(name: str, model: str) -> str:
    """Of the name and the model; where both are the same, and always in older homes, of the name alone."""
    of = ["imported", name] if name == model else ["imported", name, model]
    return f"pol-{content_hash(of)[:20]}"


def _names_for(model: str) -> list[str]:
    """The names a model's policy may have here, the plainest first; the last one is taken by no other model."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in model)
    digest = content_hash(model)
    plain = kept.lstrip("._-")[:_LONGEST] or f"model-{digest[:8]}"
    return [plain, f"{plain[: _LONGEST - 9]}-{digest[:8]}", f"model-{digest}"]
