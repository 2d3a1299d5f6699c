"""A base is examined when it is added, without its weights being read; what was not examined is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound, StudioError
from feedback.store.models.bases import noted_base_hash
from feedback.store.models.policies import list_policies
from studio.cli.app import app
from tests.training.tiny_models import byte_tokenizer, change_json, model_at
from training.checkpoints.base_check import examine_base
from training.checkpoints.hashing import describe_base
from training.checkpoints.registration import add_examined, add_policy


def test_a_sound_model_is_examined_and_its_hash_is_kept(db: Database, tmp_path: Path) -> None:
    base = model_at(tmp_path / "sound")
    added = add_examined(db, str(base))
    assert added.examination is not None and added.examination.is_complete
    told = " ".join(added.examination.examined)
    for what in ("configuration (llama)", "tokenizer", "chat template", "window (128 tokens", "weights (complete"):
        assert what in told
    assert noted_base_hash(db, added.policy) == describe_base(str(base))
    assert add_examined(db, str(base)).examination is None  # it is there already


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('never') }}", "refuses a conversation of user: never"),
        ("{{ 'turns: ' + 3 }}", "chat template refuses a conversation of user"),
        ("{{ messages[9].content.strip() }}", "chat template refuses a conversation of user"),
        ("{{ messages[0].content / 0 }}", "chat template refuses a conversation of user"),
        ("{% for message in messages %}", "chat template refuses a conversation of user"),
        ("{{ messages[-1].content if messages[-1].role != 'user' }}<|end|>", "leaves out what the user says"),
        ("{{ messages[0].content }}<|end|>", "leaves out what the assistant says"),
    ],
)
def test_a_template_that_holds_no_conversation_is_refused(
    db: Database, tmp_path: Path, template: str | None, says: str
) -> None:
    base = model_at(tmp_path / "model", tokenizer=byte_tokenizer(template))
    with pytest.raises(InvalidInput, match=says):
        add_policy(db, str(base))
    assert list_policies(db) == []


def test_faults_of_the_files_are_sentences(db: Database, tmp_path: Path) -> None:
    def refused(base: Path, says: str) -> None:
        with pytest.raises(StudioError, match=says):
            add_policy(db, str(base))
        assert list_policies(db) == []

    base = model_at(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).rename(base / f"kept-{name}")
    refused(base, "cannot be loaded")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / f"kept-{name}").rename(base / name)
    whole = (base / "config.json").read_text()
    for text in (
        "{",
        "[]",
        '{"model_type": "no-such-family"}',
        whole.replace('"num_attention_heads": 2', '"num_attention_heads": 0'),
    ):
        (base / "config.json").write_text(text)
        refused(base, "cannot be loaded")
    (base / "config.json").write_text(whole)
    (base / "adapter_config.json").write_text("{}")
    refused(base, "holds a PEFT adapter")
    (base / "adapter_config.json").unlink()
    change_json(base / "config.json", max_position_embeddings=4)
    refused(base, "reads 4 tokens at once .* takes 11")
    (base / "config.json").write_text(whole)
    (base / "model.safetensors").unlink()
    refused(base, "cannot be loaded: .*model.safetensors")
    (base / "pytorch_model.bin").write_bytes(b"PK\3\4 cut off")
    refused(base, "cannot be loaded")


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = model_at(tmp_path / "model")
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(sharded, max_shard_size="5kB")
    byte_tokenizer().save_pretrained(sharded)
    assert examine_base(str(sharded)).is_complete
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(NotFound, match=shards[1].name):
        examine_base(str(sharded))


def test_weights_in_an_older_file_are_examined_too(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = model_at(tmp_path / "model")
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    assert examine_base(str(base)).is_complete
    del tensors["model.norm.weight"]
    torch.save(tensors, base / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match=r"lack model\.norm\.weight, 1 of"):
        examine_base(str(base))


def test_the_weights_are_not_read(tmp_path: Path) -> None:
    """Four billion parameters that are nowhere: a file of holes, larger than what could be read in a test."""
    import struct

    import torch
    from transformers import AutoModelForCausalLM

    from tests.training.tiny_models import config_of

    base = tmp_path / "large"
    config = config_of(
        "llama", hidden_size=2048, intermediate_size=2**18, num_hidden_layers=2, architectures=["LlamaForCausalLM"]
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        file.truncate(8 + len(told) + end)
    assert end > 6 * 2**30
    examined = examine_base(str(base))
    assert examined.is_complete and any("3,2" in what for what in examined.examined)


def test_a_hub_id_that_is_not_here_is_registered_and_nothing_is_claimed(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["--home", str(tmp_path / "home"), "policies", "add", "nobody/no-such-model"])
    assert told.exit_code == 0, told.output
    assert "Not examined: anything: it is not on this machine" in told.stdout
    assert "can reply now" not in told.stdout


def test_the_command_says_what_it_examined(tmp_path: Path) -> None:
    home, base = str(tmp_path / "home"), str(model_at(tmp_path / "sound"))
    told = CliRunner().invoke(app, ["--home", home, "policies", "add", base])
    assert told.exit_code == 0 and "weights (complete" in told.stdout and "can reply now" in told.stdout
    again = CliRunner().invoke(app, ["--home", home, "policies", "add", base, "--name", "twice", "--json"])
    assert "chat template" in json.loads(again.stdout)["examined"]


def test_up_and_loop_examine_too(tmp_path: Path) -> None:
    base = str(model_at(tmp_path / "mute", tokenizer=byte_tokenizer(None)))
    home = str(tmp_path / "home")
    for command in (["up", "--port", "0", "--policy", base], ["loop", "--oracle", "longer", "--policy", base]):
        told = CliRunner().invoke(app, ["--home", home, *command])
        assert told.exit_code == 1 and "no chat template" in f"{told.output}{told.exception}", told.output
