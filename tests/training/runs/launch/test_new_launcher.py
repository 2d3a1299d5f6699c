"""A new place for runs is one file and an entry in a table: a toy is added to a copy of the package, and used."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import get_run
from feedback.types import RunState
from tests import factories
from tests.training.package_copy import PackageCopy
from training.home import Home
from training.runs import queue

PRETEND = Path(__file__).parents[2] / "pretend.py"

# Sends runs to processes of this machine, and notes each in a file of the directory that is its address.
TOY = f"""
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from feedback.errors import InvalidInput
from training.runs.launch.local import LocalLauncher
from training.runs.launch.target import Option, Target


class ToyLauncher(LocalLauncher):
    def __init__(self, home, toy):
        super().__init__(home, standby=False, command=(sys.executable, {str(PRETEND)!r}, "quick"))
        self.toy = toy
        self.at_once = toy.most

    def launch(self, run):
        with open(Path(self.toy.at, "launched"), "a") as notes:
            notes.write(f"{{run.id}} of at most {{self.toy.most}}\\n")
        return super().launch(run)


@dataclass(frozen=True)
class ToyYard(Target):
    NAME: ClassVar[str] = "toy"
    NOUN: ClassVar[str] = "a toy yard"
    EXAMPLE: ClassVar[str] = "--toy DIR"
    OPTIONS: ClassVar = (
        Option("--toy", "STUDIO_TOY", str, "DIR", "Execute runs in the toy yard here."),
        Option("--toy-most", "STUDIO_TOY_MOST", int, "N", "How many toys at a time."),
    )
    directory: str
    most: int = 1

    @classmethod
    def from_environment(cls, variables):
        named = variables.get("STUDIO_TOY")
        return cls(named, int(variables.get("STUDIO_TOY_MOST") or 1)) if named else None

    @classmethod
    def words_for(cls, address):
        return f"the toy yard in {{address}}"

    def environment(self):
        return {{"STUDIO_TOY": self.directory, "STUDIO_TOY_MOST": str(self.most)}}

    def check(self, home):
        if not Path(self.directory).is_dir():
            raise InvalidInput(f"There is no toy yard in {{self.directory}}.")
        return self

    def look(self):
        return f"a yard for {{self.most}}"

    def launcher(self, home, say):
        return ToyLauncher(home, self)

    @property
    def at(self):
        return self.directory
"""

LINES = (
    (
        "from training.runs.launch.target import",
        "from training.runs.launch.toy import ToyYard\nfrom training.runs.launch.target import",
    ),
    ("= (RayCluster,)", "= (RayCluster, ToyYard)"),
)


@pytest.fixture
def copy(tmp_path: Path) -> PackageCopy:
    """The package with the toy's file, and its class in the table."""
    made = PackageCopy.make(tmp_path / "copy", {"training/runs/launch/toy.py": TOY})
    for old, new in LINES:
        made.replace("training/runs/launch/registry.py", old, new)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a champion."""
    place = Home(tmp_path / "home").create()
    db = place.open()
    promote_policy(db, factories.make_policy(db).id)
    db.dispose()
    return place


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    (tmp_path / "yard").mkdir()
    return tmp_path / "yard"


@pytest.mark.slow
def test_the_command_shows_its_options_and_refuses_them_alone(copy: PackageCopy, home: Home, yard: Path) -> None:
    studio = ("-m", "studio.cli", "--home", str(home.path))
    for command in ("worker", "up"):
        shown = copy.python(*studio, command, "--help").stdout
        assert shown.index("--at-once") < shown.index("--toy DIR") < shown.index("--toy-most N"), shown
        assert "Execute runs in the toy yard here." in shown
        alone = copy.python(*studio, command, "--toy-most", "2")
        assert alone.returncode != 0
        assert "--toy-most 2 can be said of a toy yard alone, and none is named: add --toy DIR" in alone.stderr
    both = copy.python(*studio, "worker", "--toy", str(yard), "--ray", "http://head:8265")
    assert "--ray and --toy name different places for the runs; give one of them." in both.stderr
    missing = copy.python(*studio, "worker", "--toy", "/nowhere")
    assert "There is no toy yard in /nowhere." in missing.stderr


@pytest.mark.slow
def test_runs_go_there_by_an_option_and_the_doctor_sees_it(copy: PackageCopy, home: Home, yard: Path) -> None:
    db = home.open()
    run = queue.submit(db, "generate", {"limit": 1})
    asked = ("--toy", str(yard), "--toy-most", "3", "--no-standby")
    # A cluster that a variable names gives way to the option.
    worker = subprocess.Popen(
        [sys.executable, "-m", "studio.cli", "--home", str(home.path), "worker", *asked],
        cwd=copy.path,
        env=copy.environment(STUDIO_RAY_ADDRESS="http://head:8265"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not get_run(db, run.id).state.is_terminal and worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ended = get_run(db, run.id)
        found = copy.python("-m", "studio.cli", "--home", str(home.path), "doctor", "--toy", str(yard), "--json")
    finally:
        worker.terminate()
        said, _ = worker.communicate(timeout=30)
        db.dispose()
    assert ended.state is RunState.succeeded and ended.result == {"done": 1}, said
    assert (yard / "launched").read_text() == f"{run.id} of at most 3\n"
    assert f"working for {home.path}, on the toy yard in {yard}" in said
    findings = {finding["name"]: finding for finding in json.loads(found.stdout)["findings"]}
    assert findings["toy"]["ok"] and findings["toy"]["seen"] == "a yard for 1"
    assert findings["worker"]["seen"].endswith(f", for the toy yard in {yard}")
    assert "ray" not in findings


def test_a_command_that_waits_sends_its_run_there_by_a_variable(copy: PackageCopy, home: Home, yard: Path) -> None:
    command = ("-m", "studio.cli", "--home", str(home.path), "generate", "--limit", "1", "--json")
    done = copy.python(*command, STUDIO_TOY=str(yard), STUDIO_TOY_MOST="2")
    assert done.returncode == 0, done.stderr
    assert (yard / "launched").read_text() == f"{json.loads(done.stdout)['run_id']} of at most 2\n"
