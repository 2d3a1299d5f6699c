"""README and CONTRIBUTING tell the truth: every room has its line, commands exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from studio.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_contributing_has_a_line_for_every_room() -> None:
    told = re.findall(r"^- `((?:feedback|training|studio)/[\w/]*)`: \S", CONTRIBUTING, re.MULTILINE)
    rooms = [
        f"{path.parent.relative_to(ROOT)}/"
        for package in ("feedback", "training", "studio")
        for path in (ROOT / package).rglob("__init__.py")
    ]
    assert sorted(told) == sorted(rooms)


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^studio ([a-z]+(?: [a-z]+)?)\b", README, re.MULTILINE))
    assert len(shown) >= 8
    for words in shown:
        told = CliRunner().invoke(app, [*words.split(), "--help"])
        assert told.exit_code == 0, f"studio {words}: {told.output}"


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
