"""Judgments with all they rest on, out of the store and back into it, ids kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from feedback.database.chunks import Added, Saved, save_in_chunks, spooled
from feedback.database.driver_errors import one_line
from feedback.database.engine import Database
from feedback.errors import RESTORE_HINT, DatabaseDamaged, InvalidInput, InvalidLine
from feedback.store.content.prompts import MARKED, mark_evaluation
from feedback.store.models.foreign_policies import fit_in, is_foreign
from feedback.store.people.users import list_pseudonyms
from feedback.store.rows import check_keepable, reason_of, rows_by_id
from feedback.store.transfer.consistency import JudgmentRows, check_coherent
from feedback.tables import DatasetJudgmentRow, GenerationRow, JudgmentRow, LeaseRow, MatchupRow, PolicyRow, PromptRow
from feedback.types import CANNOT_REPLY, JudgmentState

_PAGE = 200
# Lines a transaction, some 50 ms on SQLite: others wait no longer than that.
_CHUNK = 5
_TABLES = (PolicyRow, PromptRow, GenerationRow, MatchupRow, LeaseRow, JudgmentRow)  # each after what it refers to
_COUNTED = ("judgments", "prompts", "generations", "matchups", "policies", "already_there")

# What another studio can know of a policy: training records and checkpoints stay where they were made.
_POLICY_FIELDS = {"id", "name", "base", "note"}
_LEFT_BEHIND = f"it was trained in another studio, where its checkpoint is, and {CANNOT_REPLY}"


_Dumped = dict[str, Any]


@dataclass(frozen=True)
class ArchivedJudgment:
    """One judgment revision and the rows it needs, as JSON-able dictionaries."""

    judgment: dict[str, Any]
    lease: dict[str, Any]
    matchup: dict[str, Any]
    prompt: dict[str, Any]
    generations: list[dict[str, Any]]
    policies: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The six parts under their names."""
        return dict(vars(self))


def iterate_judgments(db: Database, dataset_id: str) -> Iterator[ArchivedJudgment]:
    """The judgments of a dataset in the order of their ids, each preceded by the revisions it replaced.

    Users appear under their pseudonyms; the names of oracles and of annotators without an account stay.
    """
    pseudonyms = list_pseudonyms(db)
    last = ""
    while True:
        with db.read() as session:
            ids = session.exec(
                select(DatasetJudgmentRow.judgment_id)
                .where(DatasetJudgmentRow.dataset_id == dataset_id, col(DatasetJudgmentRow.judgment_id) > last)
                .order_by(col(DatasetJudgmentRow.judgment_id))
                .limit(_PAGE)
            ).all()
            entries = _archive(session, _with_revisions(session, ids))
        yield from (_renamed(entry, pseudonyms) for entry in entries)
        if len(ids) < _PAGE:
            return
        last = ids[-1]


def save_judgments(db: Database, source: str, entries: Iterable[tuple[int, ArchivedJudgment]]) -> dict[str, int]:
    """Store archived judgments, all or none; gives how many were new and how many were there already.

    ``entries`` come with their line numbers in ``source``. Raises InvalidLine, leaving everything as it
    was, for a row that does not hold its own rules, refers to something missing, or differs from the stored row of
    the same id. The pseudonyms of this studio's own users are turned back into their names.
    """
    names = {pseudonym: name for name, pseudonym in list_pseudonyms(db).items()}
    checked = ((number, _checked(_Place(source, number), _renamed(entry, names)).dump()) for number, entry in entries)
    line = 0
    elsewhere: dict[str, str] = {}  # the ids of policies there that are stored under another one here

    def save(session: Session, chunk: list[tuple[int, _Dumped]]) -> Saved:
        nonlocal line
        added: Added = {table: [] for table in _TABLES}
        counts: Counter[str] = Counter()
        for line, dumped in chunk:
            _restore(session, _Place(source, line), _Line.load(dumped), counts, added, elsewhere)
            session.flush()
        return Saved(added, counts)

    with spooled(checked, _CHUNK) as chunks:
        try:
            counts = save_in_chunks(db, chunks, save)
        except IntegrityError as error:
            raise InvalidLine(source, line, f"does not fit what is stored ({error.orig})") from error
    evaluation = {MARKED: counts[MARKED]} if counts[MARKED] else {}
    return {name: counts[name] for name in _COUNTED} | evaluation


@dataclass(frozen=True)
class _Place:
    source: str
    line: int

    def refuse(self, reason: str) -> InvalidLine:
        return InvalidLine(self.source, self.line, reason)


def _renamed(entry: ArchivedJudgment, names: dict[str, str]) -> ArchivedJudgment:
    """The same entry with its annotator called by the other name, where ``names`` has one."""
    for part in (entry.judgment, entry.lease):
        annotator = part.get("annotator")
        if isinstance(annotator, str) and annotator in names:
            part["annotator"] = names[annotator]
    return entry


def _with_revisions(session: Session, ids: Sequence[str]) -> list[JudgmentRow]:
    found: dict[str, JudgmentRow] = {}
    wanted = list(ids)
    while wanted:
        rows = session.exec(select(JudgmentRow).where(col(JudgmentRow.id).in_(wanted))).all()
        found.update({row.id: row for row in rows})
        wanted = [row.supersedes for row in rows if row.supersedes and row.supersedes not in found]
    # A revision must come before the one that supersedes it, or the import would refer to a missing row.
    return sorted(found.values(), key=lambda row: (row.matchup_id, row.annotator, row.revision))


def _archive(session: Session, judgments: Sequence[JudgmentRow]) -> list[ArchivedJudgment]:
    leases = rows_by_id(session, LeaseRow, [row.lease_id for row in judgments])
    matchups = rows_by_id(session, MatchupRow, [row.matchup_id for row in judgments])
    prompts = rows_by_id(session, PromptRow, [row.prompt_id for row in matchups.values()])
    generations = rows_by_id(session, GenerationRow, [key for row in matchups.values() for key in row.generation_ids])
    policies = rows_by_id(session, PolicyRow, [row.policy_id for row in generations.values()])
    entries = []
    for judgment in judgments:
        matchup = matchups[judgment.matchup_id]
        replies = [generations[key] for key in matchup.generation_ids]
        makers = [policies[key] for key in dict.fromkeys(reply.policy_id for reply in replies)]
        entries.append(
            ArchivedJudgment(
                judgment=_dumped(judgment),
                lease=_dumped(leases[judgment.lease_id], exclude={"session"}),
                matchup=_dumped(matchup),
                prompt=_dumped(prompts[matchup.prompt_id]),
                generations=[_dumped(reply) for reply in replies],
                policies=[_known_elsewhere(maker) for maker in makers],
            )
        )
    return entries


def _dumped(row: SQLModel, **options: Any) -> dict[str, Any]:
    """A row as JSON; DatabaseDamaged where a stored value is of another kind than its column."""
    try:
        return row.model_dump(mode="json", warnings="error", **options)
    except ValueError as error:
        where = f"the {row.__tablename__} {row.id}"  # type: ignore[attr-defined]
        raise DatabaseDamaged(f"{where} cannot be written ({one_line(error)[:160]})", RESTORE_HINT) from error


def _known_elsewhere(policy: PolicyRow) -> dict[str, Any]:
    """What leaves of a policy. Without its checkpoint a trained one would reply as its bare base: its note says so."""
    fields = _dumped(policy, include=_POLICY_FIELDS)
    if policy.checkpoint_id is not None:
        fields["note"] = "; ".join(filter(None, (policy.note, _LEFT_BEHIND)))
    elif policy.is_endpoint and policy.can_reply:
        fields["note"] = _served_there(policy.note)
    return fields


def _served_there(note: str) -> str:
    return "; ".join(filter(None, (note, f"a server replied for it elsewhere, and it {CANNOT_REPLY}")))


def _restore(
    session: Session, place: _Place, line: _Line, counts: Counter[str], added: Added, elsewhere: dict[str, str]
) -> None:
    def note(row: Any, noun: str, is_new: bool) -> None:
        counts[noun] += is_new
        if is_new:
            added[type(row)].append(row.id)

    for policy in line.policies:
        there = policy.id
        elsewhere[there], is_new = _restore_policy(session, place, policy)
        note(policy, "policies", is_new)
    session.flush()
    for generation in line.generations:
        generation.policy_id = elsewhere.get(generation.policy_id, generation.policy_id)
    _check_there(session, place, line)
    prompt_id, is_new, is_marked = _restore_prompt(session, place, line.prompt)
    note(line.prompt, "prompts", is_new)
    counts[MARKED] += is_marked
    session.flush()
    for generation in line.generations:
        generation.prompt_id = prompt_id
        note(generation, "generations", _restore_row(session, place, "generation", generation, compare=("text",)))
    line.matchup.prompt_id = prompt_id
    note(line.matchup, "matchups", _restore_row(session, place, "matchup", line.matchup, compare=("generation_ids",)))
    session.flush()
    note(line.lease, "leases", _restore_row(session, place, "lease", line.lease, compare=("matchup_id", "annotator")))
    session.flush()
    _check_only_word(session, place, line.judgment)
    is_new = _restore_row(session, place, "judgment", line.judgment, compare=("verdict", "ranking", "matchup_id"))
    note(line.judgment, "judgments", is_new)
    counts["already_there"] += not is_new


@dataclass(frozen=True)
class _Line(JudgmentRows):
    """An archived judgment as rows, with the policies whose replies it is about."""

    policies: list[PolicyRow]

    def dump(self) -> _Dumped:
        """The rows as plain dictionaries, to keep until they are written."""
        return {
            name: [row.model_dump() for row in part] if isinstance(part, list) else part.model_dump()
            for name, part in vars(self).items()
        }

    @classmethod
    def load(cls, dumped: _Dumped) -> _Line:
        """The rows again; they were validated before they were dumped."""
        return cls(
            judgment=JudgmentRow(**dumped["judgment"]),
            lease=LeaseRow(**dumped["lease"]),
            matchup=MatchupRow(**dumped["matchup"]),
            prompt=PromptRow(**dumped["prompt"]),
            generations=[GenerationRow(**fields) for fields in dumped["generations"]],
            policies=[PolicyRow(**fields) for fields in dumped["policies"]],
        )


def _checked(place: _Place, entry: ArchivedJudgment) -> _Line:
    """The rows of a line, each by its own rules and all by what they say of each other."""
    known = [{name: value for name, value in fields.items() if name in _POLICY_FIELDS} for fields in entry.policies]
    line = _Line(
        judgment=_validated(place, JudgmentRow, "judgment", entry.judgment),
        lease=_validated(place, LeaseRow, "lease", entry.lease),
        matchup=_validated(place, MatchupRow, "matchup", entry.matchup),
        prompt=_validated(place, PromptRow, "prompt", entry.prompt),
        generations=[_validated(place, GenerationRow, "generation", fields) for fields in entry.generations],
        policies=[_validated(place, PolicyRow, "policy", fields) for fields in known],
    )
    try:
        check_coherent(line)
    except InvalidInput as error:
        raise place.refuse(str(error).rstrip(".")) from error
    return line


def _check_there(session: Session, place: _Place, line: _Line) -> None:
    """Refuse a line that refers to what is neither stored nor in a line before it."""
    named: list[tuple[str, type[SQLModel], str | None]] = [
        *((f"generations.{i}.policy_id", PolicyRow, reply.policy_id) for i, reply in enumerate(line.generations)),
        ("matchup.repeat_of", MatchupRow, line.matchup.repeat_of),
        ("judgment.supersedes", JudgmentRow, line.judgment.supersedes),
    ]
    for name, table, key in named:
        if key is not None and session.get(table, key) is None:
            raise place.refuse(f"{name} names {key!r}, which is neither stored here nor in the file before this line")


def _check_only_word(session: Session, place: _Place, judgment: JudgmentRow) -> None:
    """Refuse a second judgment in force of one matchup by one person."""
    if judgment.state is not JudgmentState.current:
        return
    own = select(JudgmentRow.id).where(
        JudgmentRow.matchup_id == judgment.matchup_id,
        JudgmentRow.annotator == judgment.annotator,
        JudgmentRow.state == JudgmentState.current,
    )
    other = session.exec(own.where(JudgmentRow.id != judgment.id)).first()
    if other is not None:
        raise place.refuse(
            f"{judgment.annotator!r} has another judgment of the matchup {judgment.matchup_id} in force, {other!r}"
        )


def _restore_row(session: Session, place: _Place, noun: str, row: Any, *, compare: Sequence[str]) -> bool:
    """Store a row unless it is there; True when it was new."""
    known = session.get(type(row), row.id)
    if known is None:
        session.add(row)
        return True
    for name in compare:
        if getattr(known, name) != getattr(row, name):
            raise place.refuse(f"the {noun} {row.id} is already stored with another {name}")
    return False


def _restore_prompt(session: Session, place: _Place, row: PromptRow) -> tuple[str, bool, bool]:
    """The id of a line's prompt, whether it is new, and whether the line made a stored one an evaluation prompt.

    A prompt's identity is its content: one stored under another id is used in its place.
    """
    known = session.exec(select(PromptRow).where(PromptRow.content_hash == row.content_hash)).first()
    if known is not None:
        return known.id, False, mark_evaluation(session, known, row.split)
    if session.get(PromptRow, row.id) is not None:
        raise place.refuse(f"the prompt {row.id} is already stored with other messages")
    session.add(row)
    return row.id, True, False


def _restore_policy(session: Session, place: _Place, row: PolicyRow) -> tuple[str, bool]:
    """The id of a line's policy here, and whether it is new.

    A model that replied elsewhere is known by its name there: one stored under another id is used in its place.
    """
    if is_foreign(row.id, row.name, row.base):
        try:
            row = fit_in(session, row)
        except InvalidInput as error:
            raise place.refuse(str(error)) from error
    if session.get(PolicyRow, row.id) is not None:
        return row.id, False
    if session.exec(select(PolicyRow).where(PolicyRow.name == row.name)).first() is not None:
        raise place.refuse(f"another policy is already called {row.name!r}")
    if row.is_endpoint and row.can_reply:
        row.note = _served_there(row.note)  # a file must not have the studio talk to a server of its choosing
    session.add(row)
    return row.id, True


def _validated(place: _Place, table: type[Any], noun: str, fields: dict[str, Any]) -> Any:
    if not isinstance(fields.get("id"), str) or not fields["id"]:
        raise place.refuse(f"the {noun} has no id")
    try:
        row: SQLModel = table.model_validate(fields)
    except ValidationError as error:
        raise place.refuse(f"{noun}: {reason_of(error)}") from error
    try:
        check_keepable(row, noun)
    except InvalidInput as error:
        raise place.refuse(str(error)) from error
    return row
