"""Compiled statements: the same rows and errors as SQLAlchemy's own execution, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.exc import IntegrityError

from feedback.database.engine import Database, open_database
from feedback.database.statements import CompiledStatement
from feedback.labeling import assignment
from feedback.store.labeling.pool import MATCHUP
from feedback.store.people import users
from feedback.tables import LeaseRow
from feedback.types import WORK_PURPOSES, LeaseState, MatchupState, User, UserRole
from tests.factories import make_matchup

LEASE = LeaseRow.__table__
AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


@pytest.fixture(params=["db", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(request.param)


def test_values_come_back_as_they_went_in(database: Database) -> None:
    matchup = make_matchup(database)
    columns = {"id": "lea-1", "created_at": AT, "matchup_id": matchup.id, "annotator": "Zoë %s 'x'", "session": None}
    more = {"source": "human", "shown_order": [1, 0], "state": LeaseState.leased, "expires_at": AT, "part": "annotator"}
    find = CompiledStatement(
        select(LEASE).where(LEASE.c.annotator == bindparam("who"), LEASE.c.state == LeaseState.leased)
    )
    with database.transaction() as connection:
        CompiledStatement(insert(LEASE)).all(connection, **columns, **more)
        found = find.first(connection, who="Zoë %s 'x'")
        assert find.first(connection, who="zoë") is None
    assert (found.id, found.created_at, found.session, found.shown_order) == ("lea-1", AT, None, [1, 0])
    assert found.state is LeaseState.leased and found == tuple(found)


def test_a_list_may_have_any_length(database: Database) -> None:
    rows = [make_matchup(database) for _ in range(4)]
    find = CompiledStatement(select(MATCHUP.c.id).where(MATCHUP.c.id.in_(bindparam("ids", expanding=True))))
    with database.reading() as connection:
        for count in (3, 1, 0, 4):
            wanted = [row.id for row in rows[:count]]
            assert sorted(row.id for row in find.all(connection, ids=wanted)) == sorted(wanted)


def test_an_error_is_sqlalchemys_and_undoes_all(database: Database) -> None:
    make_matchup(database)
    task = assignment.lease_next(database, "ann")
    assert task is not None
    columns = {"id": task.lease_id, "created_at": AT, "matchup_id": task.matchup_id, "annotator": "bob"}
    more = {"source": "human", "shown_order": [0, 1], "state": "leased", "expires_at": AT, "part": "annotator"}
    retire = CompiledStatement(MATCHUP.update().values(state=MatchupState.retired))
    with pytest.raises(IntegrityError), database.transaction() as connection:
        retire.all(connection)
        CompiledStatement(insert(LEASE)).all(connection, **columns, **more)
    with database.reading() as connection:
        assert connection.execute(select(MATCHUP.c.state)).scalar() is MatchupState.open


def test_what_never_changes_stands_in_the_sql_so_that_a_partial_index_is_used(db: Database) -> None:
    live = CompiledStatement(
        select(LEASE.c.id).where(LEASE.c.state == LeaseState.leased, LEASE.c.expires_at <= bindparam("at"))
    )
    seen: list[str] = []
    with db.reading() as connection:
        driver = connection.connection.driver_connection
        driver.set_trace_callback(seen.append)  # type: ignore[union-attr]
        live.all(connection, at=AT)
        driver.set_trace_callback(None)  # type: ignore[union-attr]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0]}").all()
    assert "state = 'leased'" in seen[0] and "ix_lease_live" in plan[0][-1]


def test_open_work_is_counted_from_an_index_alone_and_the_pool_is_still_walked_in_order(db: Database) -> None:
    for _ in range(30):
        make_matchup(db)
    is_open = (MATCHUP.c.state == MatchupState.open) & MATCHUP.c.purpose.in_(WORK_PURPOSES)
    walk = select(MATCHUP).where(is_open).order_by(MATCHUP.c.priority.desc(), MATCHUP.c.created_at, MATCHUP.c.id)
    with db.transaction() as connection:
        connection.exec_driver_sql("ANALYZE")  # a planner that knows the table must not sort the pool either
        for query, index in ((select(func.count()).where(is_open), "COVERING INDEX ix_matchup_open_work"),
                             (walk.limit(9), "INDEX ix_matchup_pool")):  # fmt: skip
            text = query.compile(db.engine, compile_kwargs={"literal_binds": True})
            plan = " ".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
            assert index in plan and "TEMP B-TREE" not in plan, plan


def test_a_glance_sees_at_once_what_another_connection_saved(database: Database) -> None:
    assert not users.any_user(database)
    other = open_database(database.url)
    users.save_user(other, User(name="ann", role=UserRole.admin), actor="test")
    other.dispose()
    assert users.any_user(database)
    database.dispose()
    assert users.any_user(database), "after closing everything a glance opens what it needs"
