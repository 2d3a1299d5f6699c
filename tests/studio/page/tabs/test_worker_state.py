"""Whether a worker is running is told by its own lock, not by what waits in the queue."""

from __future__ import annotations

from feedback.database.engine import Database
from feedback.store.models import policies
from studio.page.tabs import train, users
from studio.page.worker_notice import NO_WORKER
from studio.services.facade import Services
from studio.web.api import label_screen
from studio.web.api.schemas import LabelIn
from tests import factories
from training.home import Home

ASKED = LabelIn(seq=1, session="browser-0001")


def test_without_a_worker_every_place_says_so(services: Services, home: Home, db: Database) -> None:
    policies.promote_policy(db, factories.make_policy(db, "starter").id)
    factories.make_prompt(db)
    services.pool.fill_pool()
    empty = label_screen.deck(services, ASKED)["empty"]
    assert NO_WORKER.replace("`", "&#96;") in empty and "notice-bad" in empty
    assert "is writing" not in empty
    assert "No worker is running" in users.show_worker(services)
    shown = train.watch(services, None, None)[-1]
    assert shown["visible"] and "No worker is running" in shown["value"]
    with home.lock_worker():
        empty = label_screen.deck(services, ASKED)["empty"]
        assert "No worker" not in empty and "is writing" in empty
        assert users.show_worker(services) == ""
        assert not train.watch(services, None, None)[-1]["visible"]
