"""`studio policies export` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from feedback.store.people.audit import list_events
from studio.cli.app import app
from training.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("STUDIO_DATABASE_URL", raising=False)
    return Home(tmp_path / "home")


def export(home: Home, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["--home", str(home.path), "policies", "export", *map(str, arguments)])


def test_the_starter_is_exported_and_written_down(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export(home, "starter", "--as", "merged", "--out", out, "--prompts", "1", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["place"] == str(out) and told["form"] == "merged" and told["checks"]["prompts"] == 1
    assert set(told["files"]) == {path.name for path in out.iterdir()} >= {"model.safetensors", "README.md"}
    assert "Greedy replies to 1 prompts" in done.stderr and "merging" in done.stderr
    assert not {path.stat().st_mode & 0o044 for path in out.iterdir()} - {0o044}, "files for others to read"
    db = home.open()
    (event,) = list_events(db, verb="policy.export")
    db.dispose()
    assert (event.subject, event.detail) == ("starter", {"form": "merged", "out": str(out)})
    again = export(home, "starter", "--as", "merged", "--out", out)
    assert again.exit_code == 1 and "is not empty, and nothing in it is overwritten" in again.stderr


def test_a_gguf_file_lies_beside_its_modelfile(home: Home, tmp_path: Path) -> None:
    done = export(home, "starter", "--as", "gguf", "--out", tmp_path / "out", "--prompts", "1")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Exported starter as gguf to ") and "starter-f16.gguf" in done.stdout
    assert "tokens (100.0 %) of the policy's greedy replies" in done.stderr
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./starter-f16.gguf\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody", "--as", "merged"), "There is no policy 'nobody'. Known: starter."),
        (("starter", "--as", "adapter"), "'starter' is a bare base: it has no adapter. `--as merged` exports"),
        (("starter", "--as", "gguf", "--quantization", "q4"), "There is no quantization 'q4'. Valid: f16, q8_0."),
        (("starter", "--as", "hub"), "is no repository of the Hub; name one as USER/REPO"),
    ],
)
def test_a_mistake_is_one_sentence(home: Home, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = export(home, *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 1 and said in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_an_unknown_form_names_the_valid_ones(home: Home, tmp_path: Path) -> None:
    done = export(home, "starter", "--as", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "'adapter', 'merged', 'gguf', 'hub'" in done.stderr
