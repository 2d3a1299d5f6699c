"""The form that adds a model: what it tells meanwhile, what it refuses, and who may name what."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotAllowed, Unavailable
from feedback.store.models import policies
from feedback.types import UserRole
from studio.identity import Person
from studio.page.tabs import policies as policies_tab
from studio.page.tabs import wiring
from studio.services.facade import Services
from training.generation.stopping import check_stopped
from training.home import Home


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    """The database of the home itself: a process of its own opens that."""
    database = home.open()
    yield database
    database.dispose()


def test_nothing_is_asked_without_a_model(services: Services) -> None:
    for model in ("", "  "):
        with pytest.raises(InvalidInput, match="Name a model first: a Hugging Face id such as"):
            next(policies_tab.check_model(services, model, ""))
        with pytest.raises(InvalidInput, match="smollm2 or starter"):
            next(policies_tab.add_model(services, model, "mine", ""))


def test_a_model_is_added_and_told_of_meanwhile(
    services: Services, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = list(policies_tab.add_model(services, " nobody/small-1B ", " mine ", ""))
    assert 'role="progressbar"' in told[0][0] and not told[0][1].interactive and not told[0][2].interactive
    panel, check, add, model, name, selected = told[-1]
    (row,) = policies.list_policies(db)
    assert (row.name, row.base, selected) == ("mine", "nobody/small-1B", row.id)
    assert "mine was added" in panel and check.interactive and add.interactive and (model, name) == ("", "")


def test_what_failed_is_told_and_the_form_is_free_again(services: Services) -> None:
    researcher = services.acting_as(Person("res", UserRole.researcher, "usr-x"))
    steps, told = policies_tab.check_model(researcher, "/etc/passwd", ""), []
    with pytest.raises(NotAllowed, match="are for an admin to name"):
        for one in steps:
            told.append(one)
    panel, check, add = told[-1]
    assert "for an admin to name" in panel and check.interactive and add.interactive
    with services._shared.examiner._busy, pytest.raises(Unavailable, match="Another model is being examined"):
        list(policies_tab.check_model(services, "starter", ""))
    with pytest.raises(InvalidInput, match="name"):
        list(policies_tab.add_model(services, "starter", "../odd", ""))


def test_who_leaves_the_page_ends_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "BEAT_SECONDS", 0.01)
    ended = threading.Event()

    def work(say: object) -> None:
        try:
            while True:
                check_stopped()
                ended.wait(0.01)
        finally:
            ended.set()

    steps = wiring.while_waiting(work)
    assert next(steps)[0] == ""
    steps.close()
    assert ended.wait(20)
