"""The one rule of the house, read from the imports: studio → training → feedback, and light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"feedback": 0, "training": 1, "studio": 2}
NEVER = {
    "feedback": {"torch", "gradio", "transformers", "peft", "trl", "httpx", "requests", "urllib3", "aiohttp", "socket"},
    "training": {"gradio", "fastapi"},
    "studio": {"sqlalchemy", "sqlmodel", "sqlite3"},
}
# Only inside functions, so that the page and the command open at once.
NOT_AT_IMPORT = {"studio": {"torch", "transformers", "peft", "trl"}}


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level package names a file imports, and whether the import runs when the module is imported."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(f)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            yield name.split(".")[0], id(node) not in inside


def files() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name, at_import in imports_of(path):
        assert ROOMS.get(name, -1) <= ROOMS[room], f"{room} must not import {name}"
        assert name not in NEVER[room], f"{room} must not import {name}"
        assert not (at_import and name in NOT_AT_IMPORT.get(room, set())), f"{path.name} imports {name} at the top"


def test_the_rule_sees_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("import torch.nn\nfrom studio import app\n\ndef later():\n    import peft\n")
    assert set(imports_of(breach)) == {("torch", True), ("studio", True), ("peft", False)}


@pytest.mark.parametrize(
    "module", ["feedback.formats", "training.runs.queue", "training.settings.train", "training.worker", "studio.cli"]
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = "torch transformers peft trl gradio pandas datasets"
    code = f"import sys, {module}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.strip() == "[]"
