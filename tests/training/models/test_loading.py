"""Bases and adapters: what cannot be loaded says so, and the reference is the base itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.errors import CheckpointError, NotFound
from training.models.base_files import base_directory
from training.models.loading import LoadedPolicy, attach_adapter, load_base, load_scorer, parameter_count, pick_device


def test_a_base_is_frozen_and_in_full_precision_on_a_processor(tiny_base: Path) -> None:
    import torch

    model, tokenizer = load_base(str(tiny_base), "cpu")
    assert model.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert tokenizer.pad_token_id == 0
    assert parameter_count(model) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("base", ["/nowhere/at/all", "./missing", "~/missing-model", "a/b/c", ""])
def test_a_path_that_does_not_exist_says_so(base: str) -> None:
    with pytest.raises(NotFound, match=r"There is no model .*No directory has this path"):
        load_base(base, "cpu")


def test_a_directory_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no config\.json"):
        base_directory(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotFound, match="cannot be loaded"):
        load_base(str(tmp_path), "cpu")


def test_a_hub_id_that_is_not_at_hand_says_what_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotFound, match="Qwen/Qwen2.5-0.5B-Instruct"):
        load_base("nobody/no-such-model", "cpu")
    with pytest.raises(NotFound, match="first use of an id needs the network"):
        base_directory("nobody/no-such-model")


def test_a_scorer_finds_the_last_real_token(tiny_base: Path) -> None:
    import torch

    model, tokenizer = load_scorer(str(tiny_base), "cpu")
    ids = torch.tensor([[10, 11, 12]])
    padded = torch.tensor([[10, 11, 12, tokenizer.pad_token_id]])
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        beside = model(input_ids=padded, attention_mask=torch.tensor([[1, 1, 1, 0]])).logits
    assert alone.shape == (1, 1)
    torch.testing.assert_close(alone, beside)


@pytest.fixture
def adapted(tiny_base: Path, tmp_path: Path) -> LoadedPolicy:
    """The tiny base under a random adapter that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_base(str(tiny_base), "cpu")
    under = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in under.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    under.save_pretrained(tmp_path / "adapter")
    model, tokenizer = load_base(str(tiny_base), "cpu")
    return LoadedPolicy(attach_adapter(model, tmp_path / "adapter"), tokenizer, str(tiny_base))


def test_the_reference_is_the_base_with_the_adapter_off(adapted: LoadedPolicy, tiny_base: Path) -> None:
    import torch

    bare, _ = load_base(str(tiny_base), "cpu")
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        expected = bare(input_ids=ids).logits
        with adapted.reference() as model:
            assert torch.equal(model(input_ids=ids).logits, expected)
        assert not torch.allclose(adapted.model(input_ids=ids).logits, expected, atol=1e-2)


def test_folding_for_sampling_changes_nothing_but_speed(adapted: LoadedPolicy) -> None:
    import torch

    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        before = adapted.model(input_ids=ids).logits
        with adapted.for_sampling() as model:
            torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(adapted.model(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)


def test_a_device_asked_for_is_the_device() -> None:
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize("scores", [False, True])
def test_an_adapter_that_lacks_weights_or_has_more_is_refused(tiny_base: Path, tmp_path: Path, scores: bool) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    load, task = (load_scorer, "SEQ_CLS") if scores else (load_base, "CAUSAL_LM")
    under = get_peft_model(load(str(tiny_base), "cpu")[0], LoraConfig(r=4, target_modules="all-linear", task_type=task))
    under.save_pretrained(tmp_path, save_embedding_layers=False)
    path = tmp_path / "adapter_model.safetensors"
    whole = load_file(path)
    assert attach_adapter(load(str(tiny_base), "cpu")[0], tmp_path)
    dropped = [name for name in whole if "q_proj.lora_B" in name]
    save_file({name: tensor for name, tensor in whole.items() if name not in dropped}, path)
    with pytest.raises(CheckpointError, match=rf"lacks {dropped[0]} and 1 more"):
        attach_adapter(load(str(tiny_base), "cpu")[0], tmp_path)
    save_file(whole | {"base_model.model.model.layers.9.extra.lora_A.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"no place in its base for .*layers\.9\.extra"):
        attach_adapter(load(str(tiny_base), "cpu")[0], tmp_path)
