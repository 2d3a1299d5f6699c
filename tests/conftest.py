"""What every room's tests share: a real database in a temporary directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.database.engine import Database, open_database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "studio.db")
    yield database
    database.dispose()


def pytest_configure() -> None:
    """No test, and no process that one starts, finds a model that the user once brought."""
    os.environ["STUDIO_MODELS"] = os.path.join(tempfile.gettempdir(), "studio-tests-without-models")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what ``slow_except`` marks, but for the cases it names by their ids."""
    for item in items:
        for marker in item.iter_markers("slow_except"):
            if item.callspec.id not in marker.args:  # type: ignore[attr-defined]
                item.add_marker("slow")
