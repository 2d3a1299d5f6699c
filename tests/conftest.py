"""What every room's tests share: a real database in a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.database.engine import Database, open_database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "studio.db")
    yield database
    database.dispose()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what ``slow_except`` marks, but for the cases it names by their ids."""
    for item in items:
        for marker in item.iter_markers("slow_except"):
            if item.callspec.id not in marker.args:  # type: ignore[attr-defined]
                item.add_marker("slow")
