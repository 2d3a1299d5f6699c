"""The README tells the truth: its tree names every module, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from studio.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Told by their folder's line.
FOLDED = ("training/starter/families/", "feedback/migrations/")


def test_the_tree_names_every_module() -> None:
    tree = README.split("## What lies where")[1].split("## ")[0]
    named, room = set(), ""
    for line in tree.splitlines():
        if re.match(r"^\w+/", line):
            room = line.split("/")[0]
        elif match := re.match(r"^  (\S+\.py)\s+\S", line):
            named.add(f"{room}/{match.group(1)}")
    modules = {
        str(path.relative_to(ROOT))
        for room in ("feedback", "training", "studio")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    expected = {path for path in modules if not path.startswith(FOLDED)}
    assert {path for path in named if path.startswith(("feedback/", "training/", "studio/"))} == expected


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^studio ([a-z]+(?: [a-z]+)?)\b", README, re.MULTILINE))
    assert len(shown) >= 8
    for words in shown:
        told = CliRunner().invoke(app, [*words.split(), "--help"])
        assert told.exit_code == 0, f"studio {words}: {told.output}"


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
