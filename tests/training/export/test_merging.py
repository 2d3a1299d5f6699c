"""Adapters that merge exactly do, and the others are refused with what can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import CheckpointError, InvalidInput
from tests.training.export.conftest import MakePolicy
from training.checkpoints.manifest import Adapter
from training.checkpoints.opening import open_policy
from training.export.exporting import Form, Request, export_policy
from training.export.merging import merge, refuse_unmergeable, write_model
from training.export.origin import find_origin
from training.home import Home


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_merging_leaves_what_the_model_computes(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy, kind: str
) -> None:
    import torch

    make_trained(smol_like, kind)
    policy = open_policy(db, home, "child", "cpu")
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        before = policy.model(input_ids=ids).logits
        with policy.reference() as base:
            assert not torch.allclose(base(input_ids=ids).logits, before, atol=0.1)
        merged = merge(policy)
        torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-3, rtol=1e-3)
    assert type(merged).__name__ == "LlamaForCausalLM"


def test_a_bottleneck_is_refused_and_goes_as_an_adapter(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy, tmp_path: Path
) -> None:
    make_trained(smol_like, "bottleneck")
    with pytest.raises(InvalidInput, match="The bottleneck adapter of 'child' cannot be merged .* it is not linear"):
        export_policy(db, home, "child", Request(Form.merged, str(tmp_path / "out")))
    with pytest.raises(InvalidInput, match="`studio policies export child --as adapter`"):
        export_policy(db, home, "child", Request(Form.gguf, str(tmp_path / "out")))
    done = export_policy(db, home, "child", Request(Form.adapter, str(tmp_path / "out"), prompts=1))
    assert "adapter_model.safetensors" in done.files and "Greedy replies to 1 prompts" in done.checks[0]
    assert "Plain PEFT does not know" in (tmp_path / "out" / "README.md").read_text()


def test_prompt_tuning_and_a_quantised_base_are_refused(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy
) -> None:
    import dataclasses

    make_trained(smol_like)
    origin = find_origin(db, home, "child")
    refuse_unmergeable(origin)
    assert origin.manifest is not None
    soft = origin.manifest.model_copy(update={"adapter": Adapter(kind="PROMPT_TUNING")})
    with pytest.raises(InvalidInput, match="The prompt_tuning adapter .* is not a change of weights"):
        refuse_unmergeable(dataclasses.replace(origin, manifest=soft))
    four = origin.manifest.model_copy(update={"config": {"quantize": "4bit"}})
    with pytest.raises(InvalidInput, match="over a base held in 4bit"):
        refuse_unmergeable(dataclasses.replace(origin, manifest=four))


def test_an_adapter_with_broken_weights_is_not_merged(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy
) -> None:
    import torch

    make_trained(smol_like)
    policy = open_policy(db, home, "child", "cpu")
    with torch.no_grad():
        next(weight for name, weight in policy.model.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(CheckpointError, match="cannot be merged"):
        merge(policy)


def test_every_token_that_ends_a_reply_is_kept(
    db: Database, home: Home, smol_like: Path, make_trained: MakePolicy, tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    make_trained(smol_like)
    model = merge(open_policy(db, home, "child", "cpu"))
    model.generation_config.temperature = 0.6  # as authors leave it, without do_sample
    model.generation_config.do_sample = None
    write_model(tmp_path, model, ends=[5, 6])
    found = GenerationConfig.from_pretrained(tmp_path)
    assert found.eos_token_id == [5, 6] and found.temperature == 0.6 and found.do_sample
