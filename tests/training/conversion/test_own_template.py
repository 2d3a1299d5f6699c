"""A chosen chat template stays with the base: in runs, checkpoints and exports; the original is not changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from studio.cli.app import app
from tests.training.tiny_models import byte_tokenizer, model_at
from training.bundled import models_directory
from training.checkpoints.hashing import describe_base
from training.checkpoints.registration import add_policy
from training.conversion.own_template import template_name
from training.conversion.prepare import prepare_base
from training.home import Home
from training.models.chat import end_token, prompt_text
from training.models.loading import load_base
from training.operations.rebase import rebase
from training.plain_templates import PLAIN_TEMPLATES

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
OWN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>{% endfor %}[reply]"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    """A model without a chat template."""
    return model_at(tmp_path / "mute", tokenizer=byte_tokenizer(None))


def test_a_template_by_name_is_the_bases_own_from_then_on(mute: Path) -> None:
    base = prepare_base(str(mute), "plain")
    model, tokenizer = load_base(base, "cpu")
    assert prompt_text(tokenizer, ASK) == "Be brief.\n\nUser: Hi\n\nAssistant: "
    assert end_token(tokenizer) == tokenizer.eos_token_id
    assert model is not None and describe_base(base) == describe_base(str(mute))
    assert not (mute / "chat_template.jinja").exists()
    assert prepare_base(str(mute), "plain") == base != prepare_base(str(mute), "alpaca")
    assert template_name(Path(base)) == "plain"


def test_the_weights_are_links_that_outlive_a_move(mute: Path) -> None:
    base = Path(prepare_base(str(mute), "plain"))
    assert (base / "model.safetensors").stat().st_ino == (mute / "model.safetensors").stat().st_ino
    mute.rename(mute.with_name("moved"))
    assert load_base(str(base), "cpu")


def test_a_template_from_a_file(mute: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(OWN)
    _, tokenizer = load_base(prepare_base(str(mute), str(tmp_path / "own.jinja")), "cpu")
    assert prompt_text(tokenizer, ASK).endswith("[user] Hi<|end|>[reply]")


def test_templates_that_do_not_suit_are_refused_with_others(mute: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no chat template 'vicuna'. Known: alpaca, chatml, llama2, plain, zephyr"):
        prepare_base(str(mute), "vicuna")
    with pytest.raises(InvalidInput, match=r"'chatml' needs the tokens <\|im_start\|> and <\|im_end\|>.*Choose plain"):
        prepare_base(str(mute), "chatml")
    (tmp_path / "deaf.jinja").write_text(
        "{% for m in messages if m.role != 'user' %}{{ m.content }}<|end|>{% endfor %}"
    )
    with pytest.raises(InvalidInput, match="leaves out what the user says"):
        prepare_base(str(mute), str(tmp_path / "deaf.jinja"))
    with pytest.raises(InvalidInput, match="server, which applies"):
        prepare_base("http://127.0.0.1:9/v1#m", "plain")
    assert not [path for path in models_directory().glob("*") if path.name != ".lock"]


def test_chatml_is_given_to_a_tokenizer_that_has_its_tokens(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(None)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    base = prepare_base(str(model_at(tmp_path / "chat", tokenizer=tokenizer, vocab_size=263)), "chatml")
    _, found = load_base(base, "cpu")
    assert prompt_text(found, ASK[1:]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert end_token(found) == found.convert_tokens_to_ids("<|im_end|>")


def test_the_command_refuses_and_names_the_templates_and_the_next_one_works(mute: Path, tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home"), "policies"]
    told = CliRunner().invoke(app, [*home, "add", str(mute)])
    assert told.exit_code == 1
    for name in PLAIN_TEMPLATES:
        assert name in f"{told.output}{told.exception}"
    added = CliRunner().invoke(app, [*home, "add", str(mute), "--chat-template", "alpaca", "--json"])
    assert added.exit_code == 0, added.output
    row = json.loads(added.stdout)
    assert row["name"] == "mute" and template_name(Path(row["base"])) == "alpaca"


def test_a_moved_base_does_not_lose_its_template(mute: Path, db: Database, tmp_path: Path) -> None:
    policy = add_policy(db, prepare_base(str(mute), "plain"))
    home = Home(tmp_path / "home").create()
    with pytest.raises(InvalidInput, match="chat template that was chosen for it.*--chat-template NAME"):
        rebase(db, home, policy.id, str(mute))
    copy = prepare_base(str(shutil.copytree(mute, tmp_path / "copy" / "other")), "plain")
    assert rebase(db, home, policy.id, copy).new == copy
    other = prepare_base(str(mute), "alpaca")
    with pytest.raises(InvalidInput, match="has the chat template 'alpaca'"):
        rebase(db, home, policy.id, other)


def test_a_directory_that_is_called_templates_is_none_of_these(mute: Path, db: Database, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    named = model_at(tmp_path / "templates" / "mine", tokenizer=tokenizer)
    policy = add_policy(db, str(named))
    moved = shutil.move(named, tmp_path / "mine")
    assert rebase(db, Home(tmp_path / "home").create(), policy.id, str(moved)).new == str(moved)


def test_a_tokenizer_that_was_mended_is_taken_up(mute: Path) -> None:
    before = prepare_base(str(mute), "plain")
    path = mute / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}))
    after = prepare_base(str(mute), "plain")
    assert after != before and json.loads((Path(after) / path.name).read_text())["model_max_length"] == 77
    assert prepare_base(str(mute), "plain") == after
