"""What is said of a model before anything is started is what happens then."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from feedback.errors import InvalidInput
from studio.cli.app import app
from tests.training.tiny_models import byte_tokenizer, change_json, model_at
from training.model_check.check import METHODS, check_model
from training.model_check.report import ModelReport

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def by_method(report: ModelReport) -> dict[str, Any]:
    return {one.method: one for one in report.methods}


def test_a_sound_model_works_with_every_method_and_its_steps_are_timed(tmp_path: Path) -> None:
    report = check_model(str(model_at(tmp_path / "sound")), device="cpu")
    assert [one.method for one in report.methods] == list(METHODS)
    assert all(one.works for one in report.methods), report.methods
    assert report.architecture == "LlamaForCausalLM (llama)" and report.window == "128 tokens"
    assert (report.end_tokens, report.pad_token) == (("<|end|>",), "<|pad|>")
    assert report.system_role and report.chat_template.startswith("the model's own")
    assert report.weights.startswith("safetensors, 1 file, ")
    assert 0 < by_method(report)["generate"].needed_mb < by_method(report)["ppo"].needed_mb < report.free_mb
    assert by_method(report)["generate"].step_seconds is None
    assert by_method(report)["dpo"].step_seconds == pytest.approx(2 * by_method(report)["sft"].step_seconds)
    assert "timed here" in report.timing


def test_end_tokens_pad_and_a_missing_system_role_are_told(tmp_path: Path) -> None:
    base = model_at(tmp_path / "model", tokenizer=byte_tokenizer(NO_SYSTEM, pad_token="<|end|>"))
    change_json(base / "generation_config.json", eos_token_id=[1, 40])
    report = check_model(str(base), device="cpu", try_it=False)
    assert report.end_tokens == ("<|end|>", byte_tokenizer().convert_ids_to_tokens(40))
    assert report.pad_token == "<|end|> (the end token)"
    assert not report.system_role and "begins the first user message" in report.facts()["system role"]
    assert report.timing == "not measured" and by_method(report)["dpo"].step_seconds is None


def test_a_method_that_cannot_be_says_why_and_the_others_work(tmp_path: Path) -> None:
    report = by_method(check_model(str(model_at(tmp_path / "granite", "granite")), device="cpu"))
    assert not report["reward"].works and "no scoring head for a granite" in report["reward"].verdict
    assert all(report[name].works for name in METHODS if name != "reward")


def test_what_fits_no_memory_is_said_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    base = str(model_at(tmp_path / "model"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(50_000))
    report = check_model(base, device="cpu")
    assert "does not fit the free memory" in report.timing
    assert not any(one.works for one in report.methods)
    assert "it needs about" in by_method(report)["dpo"].reason and "0 MB are free" in by_method(report)["dpo"].reason


def test_a_model_that_cannot_be_used_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no chat template"):
        check_model(str(model_at(tmp_path / "mute", tokenizer=byte_tokenizer(None))))


def test_the_command_shows_a_table_and_fails_with_the_reason(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home"), "policies"]
    base = str(model_at(tmp_path / "sound"))
    told = CliRunner().invoke(app, [*home, "check", base])
    assert told.exit_code == 0, told.output
    for said in ("system role", "window", "128 tokens", "generate", "ppo", "works", "a step"):
        assert said in told.stdout
    assert CliRunner().invoke(app, [*home, "add", base, "--name", "known"]).exit_code == 0
    report = json.loads(CliRunner().invoke(app, [*home, "check", "known", "--json"]).stdout)
    assert report["base"] == base and {one["method"] for one in report["methods"]} == set(METHODS)
    mute = str(model_at(tmp_path / "mute", tokenizer=byte_tokenizer(None)))
    for bad, reason in (
        (mute, "chat template"),
        ("/nowhere/at/all", "no model directory"),
        ("http://a/v1#m", "server"),
    ):
        told = CliRunner().invoke(app, [*home, "check", bad])
        assert told.exit_code == 1 and reason in f"{told.output}{told.exception}", told.output
