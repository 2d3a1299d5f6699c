"""A real home, a real database and the services over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database, open_database
from studio.services.facade import Services
from studio.web.app import create_app
from tests.training.conftest import tiny_base  # noqa: F401  (a fixture of that room)
from training.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def services(home: Home, db: Database) -> Iterator[Services]:
    bundle = Services(home, db)
    yield bundle
    bundle.close()


@pytest.fixture
def client(home: Home, db: Database) -> Iterator[TestClient]:
    with TestClient(create_app(home, db), base_url="http://127.0.0.1:7860") as opened:
        yield opened


@dataclass(frozen=True)
class Opened:
    """A studio that the tests of a file share; they only look, or are refused."""

    client: TestClient
    db: Database


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    directory = tmp_path_factory.mktemp("opened")
    db = open_database(directory / "studio.db")
    with TestClient(create_app(Home(directory / "home").create(), db), base_url="http://127.0.0.1:7860") as client:
        yield Opened(client, db)
    db.dispose()
