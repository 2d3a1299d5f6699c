"""The rules of the house, read from the imports: packages and rooms import one way, and light rooms stay light.

A room is a directory with modules; a module at the top of a package stands for itself. Rooms are listed bottom first,
and import only from those before them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.settings.registry import NAMES

ROOT = Path(__file__).parent.parent
ROOMS = {"feedback": 0, "training": 1, "studio": 2}
NEVER = {
    "feedback": {"torch", "gradio", "transformers", "peft", "trl", "httpx", "requests", "urllib3", "aiohttp", "socket"},
    "training": {"gradio", "fastapi"},
    "studio": {"sqlalchemy", "sqlmodel", "sqlite3"},
}
# Only inside functions, so that the page and the command open at once.
NOT_AT_IMPORT = {"studio": {"torch", "transformers", "peft", "trl"}}


_FEEDBACK = """
    errors files column_types types tables round_tables chat_tables migrations/versions migrations outputs packed_files
    jsonl rules database store store/people store/content store/labeling store/models store/datasets store/reports
    store/transfer quality datasets labeling formats/base formats/trl formats
"""
_TRAINING = """
    private_files lost_database home bundled plain_templates http_answers settings reporting adapters forward models
    speedups generation checkpoints conversion smollm2 data starter/text starter/families starter rewards
    trainer evaluation board export ppo model_check methods runs/launch runs operations rounds loop
    failures preloading serving execute worker
"""
_STUDIO = """
    identity metrics_export doctor worker_keeper security background services web/server page
    page/views/labeling page/views/training page/views page/views/board page/views/overview web/guard page/tabs web/api
    web cli/session cli/commands cli
"""
ORDER = {"feedback": _FEEDBACK.split(), "training": _TRAINING.split(), "studio": _STUDIO.split()}
MOST_MODULES = 12
MOST_LINES = 400
# Rooms with a module for each method: those are told apart by name, however many there are, and are not counted.
ROOMS_OF_METHODS = {"training/methods", "training/settings"}
# A history, which only ever grows: its modules are not counted either.
HISTORY = "feedback/migrations/versions"
COMMANDS = "studio/cli/commands"
# Commands that act beside the services, since they work on a home without a studio or in place of people.
BESIDE_THE_SERVICES = {"loop", "serve", "storage"}
ACTING = ("feedback.store.", "feedback.datasets.", "training.runs.queue", "studio.security.accounts")
PURE = {"feedback.datasets.split_size.split_notes"}


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


def modules_of(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, those of modules as well as those of what they hold."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """The room of a file, as the order lists it: its directory in the package, or the module at the package's top."""
    inside = path.relative_to(ROOT).parts[1:]
    return "/".join(inside[:-1]) or path.stem


def file_of(name: str) -> Path | None:
    """The file that a dotted name lies in: of a module, of a package, or of a module that holds it."""
    for parts in (name.split("."), name.split(".")[:-1]):
        module = ROOT.joinpath(*parts)
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if parts and path.is_file():
                return path
    return None


def upward(path: Path, package: str) -> list[str]:
    """What a file imports from rooms of its package that do not lie below its own."""
    order, own = ORDER[package], room_of(path)
    found = []
    for name in modules_of(path):
        there = file_of(name) if name.startswith(f"{package}.") else None
        if there is None or room_of(there) in (own, "__init__"):
            continue
        if order.index(room_of(there)) > order.index(own):
            found.append(name)
    return found


def past_the_services(path: Path) -> list[str]:
    """Where a command acts by itself: functions and modules it imports, and each use of the open database.

    Values that the services give may be named: classes begin with a capital letter.
    """
    imported = [name for name in modules_of(path) if f"{name}.".startswith(ACTING) and name not in PURE]
    acting = [name for name in imported if not name.rpartition(".")[2][0].isupper()]
    opened = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    return acting + [f"{ast.unparse(node)} in line {node.lineno}" for node in opened if node.attr == "db"]


def test_commands_act_through_the_services() -> None:
    commands = {path.stem: path for path in (ROOT / COMMANDS).glob("*.py")}
    assert set(commands) >= BESIDE_THE_SERVICES
    found = {name: past_the_services(path) for name, path in commands.items() if name not in BESIDE_THE_SERVICES}
    assert {name: past for name, past in found.items() if past} == {}


@pytest.mark.parametrize("package", ORDER)
def test_every_room_has_its_place(package: str) -> None:
    rooms = {room_of(path) for path in (ROOT / package).rglob("*.py")} - {"__init__"}
    assert sorted(ORDER[package]) == sorted(rooms)


@pytest.mark.parametrize("package", ORDER)
def test_rooms_import_one_way(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted((ROOT / package).rglob("*.py"))
        if room_of(path) != "__init__" and (names := upward(path, package))
    }
    assert found == {}


def test_rooms_and_files_are_small() -> None:
    rooms: dict[str, int] = {}
    for path in files():
        where = str(path.parent.relative_to(ROOT))
        uncounted = path.name == "__init__.py" or where == HISTORY or (where in ROOMS_OF_METHODS and path.stem in NAMES)
        rooms[where] = rooms.get(where, 0) + (not uncounted)
    assert {room for room, count in rooms.items() if count > MOST_MODULES} == set()
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files()}
    assert {name for name, length in lengths.items() if length > MOST_LINES} == set()


def test_the_order_sees_a_breach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rules", "store"):
        (tmp_path / "feedback" / name).mkdir(parents=True)
    (tmp_path / "feedback" / "store" / "rows.py").touch()
    breach = tmp_path / "feedback" / "rules" / "votes.py"
    breach.write_text("def later():\n    from feedback.store import rows\n    from feedback.store.rows import record\n")
    monkeypatch.setattr("tests.test_layers.ROOT", tmp_path)
    assert upward(breach, "feedback") == ["feedback.store.rows", "feedback.store.rows.record"]
    assert upward(tmp_path / "feedback" / "store" / "rows.py", "feedback") == []


def test_a_command_that_acts_by_itself_is_seen(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text(
        "from feedback.store.people.users import list_users\nfrom feedback.store.labeling import batches\n"
        "from feedback.store.content.prompts import SavedPrompts\nfrom studio.security import accounts\n"
        "from feedback.datasets.split_size import split_notes\nfrom feedback.datasets.freeze import freeze\n"
        "import training.runs.queue as runs\n\ndef later(session):\n    from training.runs.queue import submit\n"
        "    return session.db, session.services\n"
    )
    assert past_the_services(breach) == [
        "feedback.store.people.users.list_users", "feedback.store.labeling.batches", "studio.security.accounts",
        "feedback.datasets.freeze.freeze", "training.runs.queue", "training.runs.queue.submit", "session.db in line 11",
    ]  # fmt: skip


def test_the_rule_sees_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("import torch.nn\nfrom studio import app\n\ndef later():\n    import peft\n")
    assert set(imports_of(breach)) == {("torch", True), ("studio", True), ("peft", False)}


@pytest.mark.parametrize(
    "module",
    [
        "feedback.formats",
        "training.runs.queue",
        "training.settings.train",
        "training.worker",
        "studio.cli.app",
        "studio.services.policies",
    ],
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = "torch transformers peft trl gradio pandas datasets"
    code = f"import sys, {module}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_services_load_a_noun_when_it_is_asked_for() -> None:
    code = "import sys, studio.services.facade; print([m for m in sys.modules if m.startswith('studio.services.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "studio.services.evaluation" in loaded
    assert not any(f"services.{noun}'" in loaded for noun in ("datasets", "labeling", "policies", "runs", "users"))


def test_tests_mirror_the_rooms() -> None:
    tests = ROOT / "tests"
    asked = {path.parent.relative_to(tests) for package in ROOMS for path in (tests / package).rglob("test_*.py")}
    assert [str(room) for room in sorted(asked) if not (ROOT / room).is_dir()] == []
