"""A GGUF file becomes a base: once, whole or not at all, with the numbers and tokens of the file."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from studio.cli.app import app
from tests.training.export.conftest import CHATML, tokenizer_split_as
from tests.training.families import save_model
from training.bundled import models_directory
from training.checkpoints.registration import add_policy
from training.conversion import gguf_model
from training.conversion.cache import RECORD
from training.conversion.gguf_model import weights_hash
from training.conversion.prepare import prepare_base
from training.export.gguf_file import Labels, write_gguf
from training.export.gguf_vocabulary import PROBE_TEXT, read_vocabulary
from training.export.origin import license_of_base
from training.generation.sampling import end_tokens
from training.models.chat import encode_exchange
from training.models.control_tokens import special_ids
from training.models.loading import LoadedPolicy, load_base

MakeGguf = Callable[..., Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))


@pytest.fixture
def make_gguf(tmp_path: Path) -> MakeGguf:
    """Writes a small model as GGUF: ``make_gguf(pre="smollm", form="f16", kind="llama", **config)``."""

    def make(pre: str = "smollm", form: str = "f16", kind: str = "llama", **config: Any) -> Path:
        base = save_model(tmp_path / f"base-{pre}", tokenizer_split_as(pre, template=CHATML), kind, **config)
        model, tokenizer = load_base(str(base), "cpu")
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        vocabulary = read_vocabulary(tokenizer, model.config.vocab_size, end=end, begins_with_bos=False)
        path = tmp_path / f"tiny-{pre}.{form}.gguf"
        write_gguf(path, model, vocabulary, form, Labels("tiny", "me/base", "mit"))
        return path

    return make


@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe"])
def test_weights_tokens_and_template_are_the_files(make_gguf: MakeGguf, tmp_path: Path, pre: str) -> None:
    base = prepare_base(str(make_gguf(pre)))
    original, tokenizer = load_base(str(tmp_path / f"base-{pre}"), "cpu")
    model, own = load_base(base, "cpu")
    assert weights_hash(model) == weights_hash(original.half().float())
    assert own(PROBE_TEXT)["input_ids"] == tokenizer(PROBE_TEXT)["input_ids"]
    models = [json.loads(one.backend_tokenizer.to_str())["model"] for one in (own, tokenizer)]
    assert models[0]["ignore_merges"] is models[1]["ignore_merges"] is (pre == "llama-bpe")
    assert own.chat_template == tokenizer.chat_template
    assert end_tokens(LoadedPolicy(model, own, base)) == end_tokens(LoadedPolicy(original, tokenizer, base))
    assert getattr(model.config, "quantization_config", None) is None
    assert license_of_base(base)["license"] == "mit"


def test_control_tokens_stay_whole_whatever_spells_them(tmp_path: Path) -> None:
    source = tokenizer_split_as(
        "qwen2", "deepseek_r1"
    )  # <｜User｜> and its kin hold characters that no byte stands for
    base = save_model(tmp_path / "base", source, "qwen2")
    model, tokenizer = load_base(str(base), "cpu")
    end = tokenizer.convert_tokens_to_ids("<｜end▁of▁sentence｜>")
    vocabulary = read_vocabulary(tokenizer, model.config.vocab_size, end=end, begins_with_bos=True)
    path = tmp_path / "r1.gguf"
    write_gguf(path, model, replace(vocabulary, pre_tokenizer="deepseek-r1-qwen"), "f16", Labels("r1", "me/r1", "mit"))
    told: list[str] = []
    _, own = load_base(prepare_base(str(path), report=lambda share, text: told.append(text)), "cpu")
    assert not any("only" in line for line in told), "another name of a known pre-tokenizer is known"
    assert own.eos_token_id == tokenizer.eos_token_id
    assert own(PROBE_TEXT)["input_ids"] == tokenizer(PROBE_TEXT)["input_ids"]
    asked = [{"role": "user", "content": "Explain rain."}]
    assert encode_exchange(own, asked, "Drops.") == encode_exchange(tokenizer, asked, "Drops.")
    assert special_ids(own) >= set(tokenizer.convert_tokens_to_ids(["<｜User｜>", "<｜Assistant｜>"]))


def test_scaled_rotary_frequencies_are_kept(make_gguf: MakeGguf, tmp_path: Path) -> None:
    import torch

    scaled = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    base = prepare_base(str(make_gguf(rope_parameters=scaled)))
    original, _ = load_base(str(tmp_path / "base-smollm"), "cpu")
    model, _ = load_base(base, "cpu")
    assert model.config.rope_parameters["factor"] == pytest.approx(32.0)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, original.model.rotary_emb.inv_freq)


def test_the_size_of_a_head_is_the_files(make_gguf: MakeGguf, tmp_path: Path) -> None:
    model, _ = load_base(prepare_base(str(make_gguf(kind="qwen3", head_dim=16))), "cpu")
    original, _ = load_base(str(tmp_path / "base-smollm"), "cpu")
    assert model.config.head_dim == 16
    assert weights_hash(model) == weights_hash(original.half().float())


def test_frequencies_scaled_in_another_way_are_refused(make_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from training.export import gguf_file

    monkeypatch.setattr(gguf_file, "rope_factors", lambda config: np.linspace(1, 9, 4, dtype=np.float32))
    with pytest.raises(InvalidInput, match="scaled in another way than Llama 3's"):
        prepare_base(str(make_gguf()))


def test_quantized_matrices_are_expanded(make_gguf: MakeGguf, tmp_path: Path) -> None:
    import torch

    base = prepare_base(str(make_gguf(form="q8_0")))
    original, _ = load_base(str(tmp_path / "base-smollm"), "cpu")
    model, _ = load_base(base, "cpu")
    for name, weight in original.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=0.02, rtol=0.01)


def test_a_file_is_converted_once_wherever_it_lies(
    make_gguf: MakeGguf, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_gguf()
    base = prepare_base(str(file))
    assert add_policy(db, base).name == "tiny-smollm.f16"
    monkeypatch.setattr(gguf_model, "load_gguf", None)
    elsewhere = tmp_path / "elsewhere" / file.name
    elsewhere.parent.mkdir()
    file.rename(elsewhere)
    assert prepare_base(str(elsewhere)) == base
    assert json.loads((Path(base) / RECORD).read_text())["file"] == file.name


def test_what_was_interrupted_leaves_nothing(make_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch) -> None:
    file, whole = make_gguf(), gguf_model.save_converted

    def interrupted(*given: Any, **more: Any) -> None:
        whole(*given, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_model, "save_converted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_base(str(file))
    assert [path.name for path in models_directory().iterdir()] == [".lock"]
    monkeypatch.setattr(gguf_model, "save_converted", whole)
    assert load_base(prepare_base(str(file)), "cpu")


def test_what_was_written_is_read_again(make_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    whole = transformers.LlamaForCausalLM.save_pretrained

    def torn(self: Any, directory: Any, **more: Any) -> None:
        from tests.training.tiny_models import change_weights

        whole(self, directory, **more)
        change_weights(Path(directory), lambda tensors: tensors["model.norm.weight"].add_(1.0))

    monkeypatch.setattr(transformers.LlamaForCausalLM, "save_pretrained", torn)
    with pytest.raises(OSError, match="model.norm.weight .* is not what was written"):
        prepare_base(str(make_gguf()))
    assert [path.name for path in models_directory().iterdir()] == [".lock"]


def test_files_that_cannot_be_used_are_refused_with_the_reason(make_gguf: MakeGguf, tmp_path: Path) -> None:
    import gguf

    file = make_gguf()

    def refused(path: Path, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            prepare_base(str(path))

    (tmp_path / "text.gguf").write_text("no model")
    refused(tmp_path / "text.gguf", "is no GGUF file")
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:-5000])
    refused(tmp_path / "cut.gguf", "damaged or was cut off")
    (tmp_path / "head.gguf").write_bytes(file.read_bytes()[:300])
    refused(tmp_path / "head.gguf", "damaged or was cut off")
    part = tmp_path / "tiny-00001-of-00003.gguf"
    part.write_bytes(file.read_bytes())
    refused(part, "one of the 3 files .*llama-gguf-split --merge")
    writer = gguf.GGUFWriter(str(tmp_path / "rwkv.gguf"), "rwkv7")
    import numpy as np

    writer.add_tensor("x", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "rwkv.gguf", r"architecture 'rwkv7'\) cannot be converted: .*reads GGUF of .*llama, .*qwen2")
    assert not [path for path in models_directory().glob("*") if path.name != ".lock"]


def test_a_file_that_fits_no_memory_is_refused_before_it_is_read(
    make_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    import psutil

    file = make_gguf()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(1000))
    with pytest.raises(InvalidInput, match="GB of memory"):
        prepare_base(str(file))


def test_the_command_adds_a_file(make_gguf: MakeGguf, tmp_path: Path) -> None:
    file, home = str(make_gguf()), str(tmp_path / "home")
    told = CliRunner().invoke(app, ["--home", home, "policies", "add", file, "--name", "tiny"])
    assert told.exit_code == 0 and "tiny can reply now" in told.stdout, told.output
    again = CliRunner().invoke(app, ["--home", home, "policies", "add", file, "--name", "tiny", "--json"])
    assert json.loads(again.stdout)["name"] == "tiny"
    base = json.loads(again.stdout)["base"]
    assert base.startswith(str(models_directory() / "gguf-")) and Path(base, "model.safetensors").is_file()


def test_a_kill_leaves_nothing_that_looks_like_a_model(make_gguf: MakeGguf, tmp_path: Path) -> None:
    file = make_gguf()
    code = (
        "import os, signal, sys\nfrom training.conversion import prepare, gguf_model\n"
        "whole = gguf_model.save_converted\n"
        "def killed(*given, **more): whole(*given, **more); os.kill(os.getpid(), signal.SIGKILL)\n"
        "gguf_model.save_converted = killed; prepare.prepare_base(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = models_directory().glob("gguf-*/.partial-*")
    assert not list(models_directory().glob("gguf-*/[!.]*"))
    assert load_base(prepare_base(str(file)), "cpu") and not left.exists()


def test_a_converted_model_that_was_deleted_says_how_it_is_made_again(make_gguf: MakeGguf) -> None:
    base = prepare_base(str(make_gguf()))
    shutil.rmtree(base)
    with pytest.raises(NotFound, match="`studio policies add` with the same GGUF file makes it again"):
        load_base(base, "cpu")
