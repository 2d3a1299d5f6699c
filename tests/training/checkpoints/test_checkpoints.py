"""Checkpoints: whole or not at all, loadable without us, and refused when they would lie."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.errors import CheckpointError, Conflict
from tests.training.families import FAMILIES, save_model, tokenizer_of
from training.checkpoints import hashing
from training.checkpoints import saving as saving_module
from training.checkpoints.hashing import describe_base
from training.checkpoints.loading import load_policy, load_reward
from training.checkpoints.manifest import (
    ADAPTER_FILE,
    MANIFEST_FILE,
    Adapter,
    Manifest,
    library_versions,
    read_manifest,
)
from training.checkpoints.probe import measure_probe
from training.checkpoints.saving import save_checkpoint
from training.home import Home
from training.methods import METHODS
from training.models.loading import load_base, load_scorer


def random_adapter(model: Any, task: str) -> Any:
    """The model under an adapter that makes a difference."""
    import torch
    from peft import LoraConfig, get_peft_model

    under = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type=task))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in under.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return under.eval()


def manifest_of(
    kind: Any, base: Path, model: Any, tokenizer: Any, name: str = "c1", run: str | None = None
) -> Manifest:
    return Manifest(
        kind=kind,
        name=name,
        base=str(base),
        base_hash=describe_base(str(base)),
        adapter=Adapter(kind="LORA"),
        heads=["score"] if kind == "reward" else [],
        reads_end=kind == "reward",
        versions=library_versions(),
        probe=measure_probe(kind, model, tokenizer),
        run=run,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def policy_at(home: Home, tiny_base: Path) -> Path:
    """A saved policy checkpoint."""
    model, tokenizer = load_base(str(tiny_base), "cpu")
    model = random_adapter(model, "CAUSAL_LM")
    return save_checkpoint(home, "c1", model.save_pretrained, manifest_of("policy", tiny_base, model, tokenizer))


@pytest.fixture
def reward_at(home: Home, tiny_base: Path) -> Path:
    """A saved reward checkpoint."""
    model, tokenizer = load_scorer(str(tiny_base), "cpu")
    model = random_adapter(model, "SEQ_CLS")
    return save_checkpoint(home, "r1", model.save_pretrained, manifest_of("reward", tiny_base, model, tokenizer, "r1"))


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_policy_and_a_reward_model_come_back_as_they_were(policy_at: Path, reward_at: Path) -> None:
    policy, reward = load_policy(policy_at, device="cpu"), load_reward(reward_at, device="cpu")
    saved = read_manifest(policy_at).probe.values
    assert measure_probe("policy", policy.model, policy.tokenizer).values == pytest.approx(saved, abs=1e-3)
    saved = read_manifest(reward_at).probe.values
    assert measure_probe("reward", reward.model, reward.tokenizer).values == pytest.approx(saved, abs=1e-4)
    assert len(set(saved)) == 3


def test_plain_peft_loads_them_without_us(policy_at: Path, reward_at: Path, tiny_base: Path) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForSequenceClassification

    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        plain = AutoPeftModelForCausalLM.from_pretrained(policy_at)(input_ids=ids).logits
        torch.testing.assert_close(plain, load_policy(policy_at, device="cpu").model(input_ids=ids).logits)
        base = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1)
        plain = PeftModel.from_pretrained(base, reward_at).eval()(input_ids=ids).logits
        torch.testing.assert_close(plain, load_reward(reward_at, device="cpu").model(input_ids=ids).logits)


def test_the_manifest_tells_how_it_came_to_be(policy_at: Path) -> None:
    manifest = read_manifest(policy_at)
    assert manifest.format_version == 1
    assert manifest.versions.keys() >= {"torch", "transformers", "peft"}
    assert set(manifest.files) == {ADAPTER_FILE}
    assert len(manifest.base_hash) == 64


def test_another_base_is_refused(policy_at: Path, tiny_base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_base, moved)
    assert load_policy(policy_at, base=str(moved), device="cpu").base == str(moved)
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="trained on another base"):
        load_policy(policy_at, base=str(moved), device="cpu")


def test_a_reward_model_without_its_head_is_refused(reward_at: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = reward_at / ADAPTER_FILE
    save_file({name: value for name, value in load_file(path).items() if "score" not in name}, path)
    edit_manifest(reward_at, lambda manifest: manifest.update(files={}))
    with pytest.raises(CheckpointError, match="lacks its head score"):
        load_reward(reward_at, device="cpu")


def test_a_probe_that_is_not_reproduced_is_refused(reward_at: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = reward_at / ADAPTER_FILE
    save_file({name: value * 1.5 if "score" in name else value for name, value in load_file(path).items()}, path)
    edit_manifest(reward_at, lambda manifest: manifest.update(files={}))
    with pytest.raises(CheckpointError, match="does not do what it did when it was saved"):
        load_reward(reward_at, device="cpu")


def test_a_changed_chat_template_is_named_as_the_cause(policy_at: Path, tiny_base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    shutil.copytree(tiny_base, moved)
    template = moved / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|assistant|>", "<|assistant|>\n"))
    with pytest.raises(CheckpointError, match="tokenizer or chat template of the base .* has changed since"):
        load_policy(policy_at, str(moved), device="cpu")


def test_a_probe_without_tokens_is_measured_as_it_was(policy_at: Path, tiny_base: Path) -> None:
    manifest = json.loads((policy_at / "manifest.json").read_text())
    assert len(manifest["probe"].pop("tokens")) == 3
    (policy_at / "manifest.json").write_text(json.dumps(manifest))
    assert load_policy(policy_at, device="cpu").has_adapter


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_a_checkpoint_loads_on_another_day(
    kind: str, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    from transformers.utils import chat_template_utils

    base = save_model(tmp_path / "dated", tokenizer_of(FAMILIES["llama3_2"]))
    load = load_base if kind == "policy" else load_scorer
    model, tokenizer = load(str(base), "cpu")
    model = random_adapter(model, "CAUSAL_LM" if kind == "policy" else "SEQ_CLS")
    at = save_checkpoint(home, "dated", model.save_pretrained, manifest_of(kind, base, model, tokenizer))

    class Later(datetime):
        """The clock of transformers' templates, years ahead."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 7, 4, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    chat_template_utils._compile_jinja_template.cache_clear()
    (load_policy if kind == "policy" else load_reward)(at, device="cpu")


def test_damaged_or_missing_files_are_refused(policy_at: Path) -> None:
    path = policy_at / ADAPTER_FILE
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(CheckpointError, match=f"damaged: {ADAPTER_FILE}"):
        load_policy(policy_at, device="cpu")
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{ADAPTER_FILE} is missing"):
        load_policy(policy_at, device="cpu")


def test_a_checkpoint_of_another_kind_or_a_later_format_is_refused(policy_at: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a policy checkpoint, not a reward"):
        load_reward(policy_at, device="cpu")
    edit_manifest(policy_at, lambda manifest: manifest.update(format_version=99))
    with pytest.raises(CheckpointError, match="format 99; this version reads up to 1"):
        load_policy(policy_at, device="cpu")
    edit_manifest(policy_at, lambda manifest: manifest.pop("probe"))
    with pytest.raises(CheckpointError, match="cannot be read: probe"):
        load_policy(policy_at, device="cpu")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_policy(tmp_path, device="cpu")


def write_something(directory: Path) -> None:
    (directory / ADAPTER_FILE).write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")


@pytest.fixture
def plain_manifest(policy_at: Path) -> Manifest:
    return read_manifest(policy_at).model_copy(update={"name": "c2", "run": "run-1"})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_leaves_what_was_there_and_nothing_half_done(
    home: Home, policy_at: Path, plain_manifest: Manifest, number: int
) -> None:
    def fill_up(directory: Path) -> None:
        write_something(directory)
        raise OSError(number, "no room")

    before = sorted(path.name for path in home.checkpoints.iterdir())
    with pytest.raises(CheckpointError, match="disk of .* is full.*Earlier checkpoints are intact"):
        save_checkpoint(home, "c2", fill_up, plain_manifest)
    assert sorted(path.name for path in home.checkpoints.iterdir()) == before
    load_policy(policy_at, device="cpu")


def test_a_real_limit_on_file_size_reads_as_a_full_disk(home: Home, tiny_base: Path, plain_manifest: Manifest) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    model = random_adapter(model, "CAUSAL_LM")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="is full"):
            save_checkpoint(home, "c2", model.save_pretrained, plain_manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in home.checkpoints.iterdir()] == ["c1"]


def test_another_failure_to_write_says_why(home: Home, plain_manifest: Manifest) -> None:
    def denied(directory: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(CheckpointError, match="Permission denied"):
        save_checkpoint(home, "c2", denied, plain_manifest)


def test_a_name_is_taken_but_for_the_run_that_took_it(home: Home, plain_manifest: Manifest) -> None:
    save_checkpoint(home, "c2", write_something, plain_manifest)
    again = save_checkpoint(home, "c2", write_something, plain_manifest)
    assert again == home.checkpoints / "c2"
    assert sorted(path.name for path in home.checkpoints.iterdir()) == ["c1", "c2"]
    with pytest.raises(Conflict, match="already a checkpoint 'c2'"):
        save_checkpoint(home, "c2", write_something, plain_manifest.model_copy(update={"run": "run-2"}))
    with pytest.raises(Conflict):
        save_checkpoint(home, "c1", write_something, plain_manifest)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_save_that_is_broken_off_leaves_nothing(
    home: Home, plain_manifest: Manifest, end: type[BaseException]
) -> None:
    def broken_off(directory: Path) -> None:
        write_something(directory)
        raise end

    with pytest.raises(end):
        save_checkpoint(home, "c2", broken_off, plain_manifest)
    assert [path.name for path in home.checkpoints.iterdir()] == ["c1"]


DIE = """
import os, signal, sys
from pathlib import Path
from training.checkpoints.manifest import read_manifest
from training.checkpoints.saving import save_checkpoint
from training.home import Home
from training.methods import METHODS

home, when = Home(Path(sys.argv[1])), sys.argv[2]
rename = os.rename

def write(directory):
    (directory / "new").touch()
    if when == "writing":
        os.kill(os.getpid(), signal.SIGSTOP)

def counted(source, target):
    rename(source, target)
    if Path(target).name.startswith(".old-"):
        os.kill(os.getpid(), signal.SIGKILL)

os.rename = counted
save_checkpoint(home, "c2", write, read_manifest(home.checkpoints / "c2"))
"""


def saving(home: Home, when: str) -> subprocess.Popen[bytes]:
    """A process that saves c2 again: it is killed between two renames, or stops while it writes."""
    root = str(Path(__file__).parents[3])
    return subprocess.Popen([sys.executable, "-c", DIE, str(home.path), when], env={**os.environ, "PYTHONPATH": root})


@pytest.mark.slow
def test_a_kill_between_two_renames_leaves_the_checkpoint_that_was(home: Home, plain_manifest: Manifest) -> None:
    place = save_checkpoint(home, "c2", write_something, plain_manifest)
    assert saving(home, "renaming").wait(60) == -signal.SIGKILL
    assert not place.exists()
    assert read_manifest(place).name == "c2" and (place / ADAPTER_FILE).is_file()
    assert saving(home, "renaming").wait(60) == -signal.SIGKILL
    save_checkpoint(home, "c2", write_something, plain_manifest)
    assert sorted(path.name for path in home.checkpoints.iterdir()) == ["c1", "c2"]


@pytest.mark.slow
def test_what_a_killed_save_left_is_swept_and_what_a_live_one_writes_is_not(
    home: Home, plain_manifest: Manifest
) -> None:
    save_checkpoint(home, "c2", write_something, plain_manifest)
    other = saving(home, "writing")
    try:
        assert os.WIFSTOPPED(os.waitpid(other.pid, os.WUNTRACED)[1])
        save_checkpoint(home, "c3", write_something, plain_manifest)
        assert len(list(home.checkpoints.glob(".partial-c2-*"))) == 1
    finally:
        other.kill()
        other.wait()
    save_checkpoint(home, "c4", write_something, plain_manifest)
    assert sorted(path.name for path in home.checkpoints.iterdir()) == ["c1", "c2", "c3", "c4"]


def test_a_directory_alone_takes_a_name_too(home: Home, db: Database, plain_manifest: Manifest) -> None:
    saving_module.check_name_free(db, home, "c2", "run-1")
    save_checkpoint(home, "c2", write_something, plain_manifest)
    saving_module.check_name_free(db, home, "c2", "run-1")  # its own, from before it was resumed
    with pytest.raises(Conflict, match="already a checkpoint 'c2'"):
        saving_module.check_name_free(db, home, "c2", "run-2")
    (home.checkpoints / "c3").mkdir()
    with pytest.raises(Conflict, match="already a checkpoint 'c3'"):
        saving_module.check_name_free(db, home, "c3", "run-1")


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_a_run_that_begins_finds_its_name_taken_before_it_trains(
    home: Home, make_context: Any, dataset: str, method: str
) -> None:
    (home.checkpoints / "left").mkdir()
    context = make_context(method, {"dataset": dataset, "name": "left", "allow_few": True})
    with pytest.raises(Conflict, match="already a checkpoint 'left'"):
        METHODS[method].run(context)
    assert not context.progress.lines


def test_large_weights_are_told_apart_without_reading_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_SAMPLE_ABOVE", 10)
    weights = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text("{}")
    hashes = set()
    for size, first in ((2**20, 0), (2**20, 1), (2**20 + 1, 0)):
        weights.write_bytes(bytes([first]) + bytes(size - 1))
        hashes.add(describe_base(str(tmp_path)))
    assert len(hashes) == 3


@pytest.mark.slow
def test_what_the_readme_of_a_checkpoint_names_is_there() -> None:
    """Checkpoints of every release name these two, and PEFT finds the bottleneck adapter by importing one package."""
    code = (
        "from training.checkpoints import load_policy, load_reward; import training.adapters; "
        "from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as known; "
        "assert callable(load_policy) and callable(load_reward); assert 'BOTTLENECK' in map(str, known)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
