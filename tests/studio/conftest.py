"""A real home, a real database and the services over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
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
