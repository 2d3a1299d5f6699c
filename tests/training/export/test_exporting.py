"""A policy taken away: whole, checked against the policy, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.errors import CheckpointError, Conflict, InvalidInput, NotFound
from feedback.store.models.policies import save_policy
from feedback.types import Policy
from tests.training.export.conftest import MakePolicy, tokenizer_split_as
from tests.training.families import save_model
from tests.training.tiny_models import change_weights
from training.export import parity
from training.export.exporting import Form, Request, export_policy
from training.home import Home


def settle(tensors: dict[str, Any]) -> None:
    """Let three tokens be far likelier than the rest, and layers do less: random models tip over by rounding alone."""
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    kept = head[60:63].clone()
    head.mul_(0.1)
    head[60:63] = kept
    for name, weight in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.mul_(0.3)


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*")}


@pytest.mark.slow_except("lora")
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3", "adalora"])
def test_a_merged_model_replies_as_the_policy_in_plain_transformers(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy, tmp_path: Path, kind: str
) -> None:
    from safetensors.torch import load_file

    make_trained(smol_like, kind)
    said: list[str] = []
    done = export_policy(db, home, "child", Request(Form.merged, str(tmp_path / "out"), prompts=3), said.append)
    out = Path(done.place)
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= files_in(out)
    assert {"README.md", "provenance.json"} <= files_in(out)
    assert not any("lora" in name or "ia3" in name for name in load_file(out / "model.safetensors"))
    assert done.figures["prompts"] == 3 and done.figures["same_tokens"] == done.figures["tokens"] > 20
    assert any("Greedy replies to 3 prompts" in line for line in said)
    assert json.loads((out / "provenance.json").read_text())["checks"] == done.figures
    assert str(tmp_path) not in "".join(path.read_text() for path in out.glob("*.json"))


def test_an_adapter_is_loaded_by_plain_peft(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy, tmp_path: Path
) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    from training.checkpoints.opening import open_policy

    make_trained(smol_like)
    done = export_policy(db, home, "child", Request(Form.adapter, str(tmp_path / "out"), prompts=2))
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= set(done.files)
    assert "manifest.json" not in done.files  # the run's settings, which name paths and datasets
    plain = AutoPeftModelForCausalLM.from_pretrained(done.place, dtype=torch.float32)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        ours = open_policy(db, home, "child", "cpu").model(input_ids=ids).logits
        torch.testing.assert_close(plain(input_ids=ids).logits, ours)


@pytest.mark.slow_except("llama-f16")
@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_gguf_file_says_the_same_tokens(
    db: Database, home: Home, make_trained: MakePolicy, tmp_path: Path, family: str, quantization: str
) -> None:
    tied = {"tie_word_embeddings": family != "mistral"}
    base = save_model(tmp_path / "base", tokenizer_split_as("qwen2"), family, **tied)
    change_weights(base, settle)
    make_trained(base)
    request = Request(Form.gguf, str(tmp_path / "out"), quantization, prompts=4)
    done = export_policy(db, home, "child", request)
    assert set(done.files) == {f"child-{quantization}.gguf", "Modelfile", "README.md", "provenance.json"}
    assert done.figures["agreement"] >= (0.99 if quantization == "f16" else 0.95)
    assert done.figures["tokens"] > 40


@pytest.mark.slow
@pytest.mark.parametrize("rope", ["llama3", "linear"])
def test_scaled_rotary_embeddings_are_written(
    db: Database, home: Home, make_trained: MakePolicy, tmp_path: Path, rope: str
) -> None:
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    scaled = {"rope_type": rope, "rope_theta": 10000.0, "factor": 8.0, **(more if rope == "llama3" else {})}
    make_trained(save_model(tmp_path / "base", tokenizer_split_as("llama-bpe"), "llama", rope_parameters=scaled))
    done = export_policy(db, home, "child", Request(Form.gguf, str(tmp_path / "out"), prompts=2))
    assert done.figures["agreement"] >= 0.99


def test_a_bare_base_is_exported_as_it_is(db: Database, home: Home, smol_like: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    save_policy(db, Policy(name="bare", base=str(smol_like)))
    done = export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "out"), prompts=1))
    before, after = (load_file(Path(place) / "model.safetensors") for place in (smol_like, done.place))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    with pytest.raises(InvalidInput, match="has no adapter. `--as merged` exports its weights"):
        export_policy(db, home, "bare", Request(Form.adapter, str(tmp_path / "other")))


@pytest.mark.parametrize("form", [Form.merged, Form.gguf])
@pytest.mark.parametrize("fault", ["no adapter", "twice the adapter"])
def test_a_model_that_replies_otherwise_is_not_exported(
    db: Database,
    home: Home,
    smol_like: Path,
    make_trained: MakePolicy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Form,
    fault: str,
) -> None:
    from peft.tuners.lora import Linear

    make_trained(smol_like)
    right = Linear.get_delta_weight
    factor = 0 if fault == "no adapter" else 2
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, adapter: factor * right(layer, adapter))
    with pytest.raises(CheckpointError, match="Nothing was exported") as refused:
        export_policy(db, home, "child", Request(form, str(tmp_path / "out" / "deep"), prompts=2))
    assert "--as" in str(refused.value)
    assert files_in(tmp_path / "out") == set()


@pytest.mark.parametrize("form", [Form.merged, Form.gguf])
def test_the_policys_weights_are_freed_before_the_export_is_loaded(
    db: Database,
    home: Home,
    smol_like: Path,
    make_trained: MakePolicy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Form,
) -> None:
    import gc
    import weakref

    held: list[Any] = []
    opened, load_plain = parity.greedy_replies, parity.load_plain

    def watch(policy: Any, prompts: Any) -> Any:
        held.append(weakref.ref(policy.model.get_input_embeddings().weight))
        return opened(policy, prompts)

    def load(*places: Any, **named: Any) -> Any:
        gc.collect()
        assert [one() for one in held] == [None]
        return load_plain(*places, **named)

    monkeypatch.setattr(parity, "greedy_replies", watch)
    for module in ("parity", "gguf_check"):
        monkeypatch.setattr(f"training.export.{module}.load_plain", load)
    make_trained(smol_like)
    export_policy(db, home, "child", Request(form, str(tmp_path / "out"), prompts=1))


def test_several_chat_templates_stay(db: Database, home: Home, tmp_path: Path) -> None:
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    tokenizer = tokenizer_split_as("qwen2")
    templates = {"default": tokenizer.chat_template, "tool_use": "{{ tools }}"}
    tokenizer.chat_template = templates
    base = save_model(tmp_path / "base", tokenizer)
    save_policy(db, Policy(name="bare", base=str(base)))
    merged = export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "merged"), prompts=1))
    assert "additional_chat_templates/tool_use.jinja" in merged.files
    assert (tmp_path / "merged" / "additional_chat_templates").stat().st_mode & 0o100
    assert AutoTokenizer.from_pretrained(merged.place).chat_template == templates
    export_policy(db, home, "bare", Request(Form.gguf, str(tmp_path / "gguf"), prompts=1))
    written = GGUFReader(str(tmp_path / "gguf" / "bare-f16.gguf")).fields["tokenizer.chat_template"].contents()
    assert written == templates["default"]


def test_options_of_another_form_are_refused(db: Database, home: Home, smol_like: Path, tmp_path: Path) -> None:
    save_policy(db, Policy(name="bare", base=str(smol_like)))
    for more in ({"quantization": "q8_0"}, {"contents": Form.gguf}, {"public": True}):
        with pytest.raises(InvalidInput, match=f"--{next(iter(more))} does not apply to an export as merged"):
            export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "out"), **more))


def test_a_place_that_is_taken_is_refused_before_anything_is_loaded(
    db: Database, home: Home, smol_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_policy(db, Policy(name="bare", base=str(smol_like)))
    monkeypatch.setattr("training.checkpoints.opening.open_policy", None)
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    with pytest.raises(Conflict, match="full is not empty, and nothing in it is overwritten. Name another directory"):
        export_policy(db, home, "bare", Request(Form.merged, str(full)))
    with pytest.raises(InvalidInput, match="file is not a directory"):
        export_policy(db, home, "bare", Request(Form.merged, str(file)))
    with pytest.raises(InvalidInput, match="prompts must be 1 or more, not 0"):
        export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "out"), prompts=0))
    with pytest.raises(InvalidInput, match="no quantization 'q2'. Valid: f16, q8_0"):
        export_policy(db, home, "bare", Request(Form.gguf, str(tmp_path / "out"), "q2"))
    assert files_in(full) == {"mine.txt"} and file.read_text() == "mine"


def test_an_empty_directory_is_filled(db: Database, home: Home, smol_like: Path, tmp_path: Path) -> None:
    save_policy(db, Policy(name="bare", base=str(smol_like)))
    (tmp_path / "out").mkdir()
    export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "out"), prompts=1))
    assert "model.safetensors" in files_in(tmp_path / "out")
    assert not [name for name in files_in(tmp_path) if name.startswith((".old", ".partial", ".new"))]


@pytest.mark.parametrize("already_there", [False, True])
def test_what_is_put_there_meanwhile_is_left_alone(
    db: Database, home: Home, smol_like: Path, tmp_path: Path, already_there: bool
) -> None:
    out = tmp_path / "out"
    if already_there:
        out.mkdir()

    def put(line: str) -> None:
        out.mkdir(exist_ok=True)
        (out / "mine.txt").write_text("mine")

    save_policy(db, Policy(name="bare", base=str(smol_like)))
    with pytest.raises(Conflict, match="out while the export was made. It was left as it is"):
        export_policy(db, home, "bare", Request(Form.merged, str(out), prompts=1), put)
    assert files_in(out) == {"mine.txt"} and not list(tmp_path.glob(".partial-*"))


def test_the_working_directory_is_not_replaced(
    db: Database, home: Home, smol_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_policy(db, Policy(name="bare", base=str(smol_like)))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "", "gone/.."):
        with pytest.raises(InvalidInput, match="cannot be replaced as a whole; name a new directory in it"):
            export_policy(db, home, "bare", Request(Form.merged, out))
    assert files_in(tmp_path / "here") == set()


def test_policies_without_weights_are_refused_in_words(db: Database, home: Home, tmp_path: Path) -> None:
    save_policy(db, Policy(name="far", base="http://127.0.0.1:9/v1#model"))
    with pytest.raises(Conflict, match="replies over HTTP"):
        export_policy(db, home, "far", Request(Form.merged, str(tmp_path / "out")))
    with pytest.raises(NotFound, match="There is no policy 'nobody'"):
        export_policy(db, home, "nobody", Request(Form.merged, str(tmp_path / "out")))


def test_a_full_disk_is_told_and_leaves_nothing(
    db: Database, home: Home, smol_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save_policy(db, Policy(name="bare", base=str(smol_like)))
    monkeypatch.setattr("training.export.merging.write_model", full)
    with pytest.raises(CheckpointError, match="is full. Free some space"):
        export_policy(db, home, "bare", Request(Form.merged, str(tmp_path / "out"), prompts=1))
    assert not (tmp_path / "out").exists()
    from tests.training.export.test_hub import FakeHub

    with pytest.raises(CheckpointError, match="is full. Free some space"):
        export_policy(db, home, "bare", Request(Form.hub, "me/mine", prompts=1), api=FakeHub())
    assert list(home.exports.iterdir()) == []


def test_a_repository_holds_a_merged_model_unless_told_otherwise() -> None:
    assert Request(Form.hub, "me/mine").written is Form.merged
    assert Request(Form.hub, "me/mine", contents=Form.gguf).written is Form.gguf
