"""A new method is two files and one line: a toy is added that way to a copy of the package, and then used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.store.models.policies import promote_policy
from feedback.types import DatasetFilters
from tests import factories
from tests.training.package_copy import PackageCopy
from training.home import Home

SETTINGS = '''
from typing import ClassVar, Literal

from pydantic import Field

from training.settings.plots import LOSS, Plot
from training.settings.train import TrainSettings


class ToySettings(TrainSettings):
    """Make a policy louder."""

    METHOD: ClassVar[str] = "toy"
    SUMMARY: ClassVar[str] = "Speak up."
    SIMPLE: ClassVar[tuple[str, ...]] = (*TrainSettings.SIMPLE, "loudness")
    FIRST_PLOTS: ClassVar[tuple[Plot, Plot]] = (LOSS, Plot("Loudness", ("volume",)))

    loudness: int = Field(3, ge=1, le=11, description="How loud it gets.")
    tone: Literal["warm", "cold"] | None = Field(None, description="How it sounds; left out, as before.")
'''

METHOD = """
def run(context):
    settings = context.settings
    for step in range(1, settings.epochs + 1):
        context.progress.metrics(step, loss=1 / step, volume=float(settings.loudness * step))
    return {"volume": settings.loudness * settings.epochs}
"""

LINE = '    "toy",\n'

# Run inside the copy; prints what the page and the REST route say of the toy.
LOOK = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from feedback.errors import StudioError
from studio.page.views.training import curves, forms
from studio.services.facade import Services
from studio.web.app import create_app
from training.home import Home
from training.methods import METHODS
from training.settings.parsing import parse_settings
from training.trainer.parents import check_trains_on

home = Home(Path(sys.argv[1]))
db = home.open()
services = Services(home, db)
seen = {"offered": services.runs.training_methods().get("toy")}
if seen["offered"]:
    seen["fields"] = [field._asdict() for field in forms.form_fields(services.runs.describe("toy"))]
    seen["plots"] = [[plot.title, plot.holds("volume")] for plot in curves.first_plots("toy")]
    try:
        check_trains_on("p", "b", "ADALORA", parse_settings("toy", {"dataset": "d"}))
    except StudioError as error:
        seen["parent"] = str(error)
services.close()
with TestClient(create_app(home, db), base_url="http://127.0.0.1:7860") as client:
    def post(**config):
        answer = client.post("/api/runs", json={"method": "toy", "config": config})
        return [answer.status_code, answer.json()]
    seen["unknown"] = post(dataset="judged", volume=3)
    seen["too_loud"] = post(dataset="judged", loudness=12)
    seen["no_pairs"] = post(dataset="empty")
    seen["queued"] = post(dataset="judged", loudness=5)
print(json.dumps(seen))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a champion, a dataset with pairs, and one without."""
    monkeypatch.delenv("STUDIO_HOME", raising=False)
    place = Home(tmp_path / "home").create()
    db: Database = place.open()
    champion = factories.make_policy(db, "start")
    promote_policy(db, champion.id)
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    freeze(db, "empty")
    factories.judge_by(db, factories.longer)
    freeze(db, "judged", DatasetFilters(test_share=0.0))
    db.dispose()
    return place


def with_toy(tmp_path: Path, *, registered: bool) -> PackageCopy:
    """Copy the package and add the toy's two files and, where ``registered``, its line."""
    copy = PackageCopy.make(
        tmp_path / "copy", {"training/settings/toy.py": SETTINGS, "training/methods/toy.py": METHOD}
    )
    if registered:
        copy.replace("training/settings/registry.py", '    "ppo",\n', '    "ppo",\n' + LINE)
    return copy


def look(copy: PackageCopy, home: Home) -> dict[str, Any]:
    done = copy.python("-c", LOOK, str(home.path))
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_method_of_two_files_and_one_line_is_everywhere(tmp_path: Path, home: Home) -> None:
    copy = with_toy(tmp_path, registered=True)
    studio = ("-m", "studio.cli", "--home", str(home.path))

    assert "sft, toy." in copy.python(*studio, "train", "--help").stdout
    refused = copy.python(*studio, "train", "toy", "--dataset", "judged", "--set", "loudness=12")
    assert refused.returncode != 0 and "loudness='12' is not valid for toy: int, 1 to 11" in refused.stderr

    seen = look(copy, home)
    assert seen["offered"] == "Speak up."
    fields = {field["name"]: field for field in seen["fields"]}
    assert (fields["loudness"]["widget"], fields["loudness"]["info"]) == ("integer", "How loud it gets (1 to 11).")
    assert fields["loudness"]["simple"] and not fields["tone"]["simple"]
    assert fields["tone"]["choices"] == ["default", "warm", "cold"]
    assert seen["plots"] == [["Loss", False], ["Loudness", True]]
    status, answer = seen["unknown"]
    assert status == 422 and "toy has no setting 'volume'" in answer["detail"]
    assert "loudness (1 to 11)" in answer["detail"]
    status, answer = seen["too_loud"]
    assert status == 422 and "loudness=12 is not valid for toy" in answer["detail"]
    assert seen["queued"][0] == 202, seen["queued"]

    # What the toy forgot to declare is checked all the same.
    status, answer = seen["no_pairs"]
    assert status == 422 and "'empty' has 0 training pairs" in answer["detail"]
    assert "AdaLoRA adapter, which cannot be trained on" in seen["parent"]

    done = copy.python(*studio, "train", "toy", "--dataset", "judged", "--set", "loudness=4", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["state"] == "succeeded" and run["result"] == {"volume": 12}
    shown = json.loads(copy.python(*studio, "runs", "show", run["run_id"], "--json").stdout)
    assert shown["metrics"] == {"loss": pytest.approx(1 / 3), "volume": 12.0}
    assert shown["reproduce"]["command"] == "studio train toy --dataset judged --parent start --set loudness=4"


@pytest.mark.slow
def test_without_its_line_there_is_no_such_method(tmp_path: Path, home: Home) -> None:
    copy = with_toy(tmp_path, registered=False)
    refused = copy.python("-m", "studio.cli", "--home", str(home.path), "train", "toy", "--dataset", "judged")
    assert refused.returncode != 0 and "There is no training method 'toy'" in refused.stderr
    seen = look(copy, home)
    assert seen["offered"] is None
    assert seen["queued"][0] == 422 and "There is no method 'toy'" in seen["queued"][1]["detail"]


def test_a_settings_module_that_declares_no_method_is_named(tmp_path: Path) -> None:
    copy = with_toy(tmp_path, registered=True)
    copy.replace("training/settings/toy.py", '"Speak up."', '""')
    done = copy.python("-c", "import training.settings.registry")
    assert "training.settings.toy must define one settings class with METHOD = 'toy' and a SUMMARY" in done.stderr
