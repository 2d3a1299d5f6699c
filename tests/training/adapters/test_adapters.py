"""Adapters of every kind: the base exactly at step 0, named, switched off, saved, and loaded by plain PEFT."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import InvalidInput, UnknownSetting
from feedback.types import PreferencePair
from tests.training.conftest import WINDOW
from training.adapters.bottleneck import BottleneckConfig, BottleneckLayer
from training.adapters.build import adapter_config, attach_adapter, can_fold, copy_adapter
from training.checkpoints.manifest import Adapter, read_manifest
from training.checkpoints.opening import open_policy, open_reward
from training.generation.sampling import sample
from training.methods import METHODS
from training.methods.dpo import train_dpo
from training.models.loading import LoadedPolicy, load_base, load_scorer
from training.reporting.reporter import LocalProgress
from training.settings.dpo import DpoSettings
from training.settings.parsing import parse_settings
from training.settings.reward import RewardSettings
from training.trainer.running import adapter_writer

PLAIN = ("lora", "rslora", "dora", "ia3", "adalora")  # what PEFT knows without us
KINDS = (*PLAIN, "bottleneck")
QUICK = {"min_steps": 6, "epochs": 1, "batch_size": 4, "warmup": 0.0, "learning_rate": 1e-2}
IDS = list(range(20, 44))


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits


def settings_of(kind: str, **more: Any) -> DpoSettings:
    return DpoSettings(dataset="d", adapter=kind, lora_rank=4, reduction=4, **{**QUICK, **more})


@pytest.mark.parametrize(("layout", "places"), [("houlsby", 4), ("pfeiffer", 2)])
def test_a_bottleneck_begins_as_the_base_exactly(tiny_base: Path, layout: str, places: int) -> None:
    import torch
    from peft import get_peft_model

    model, _ = load_base(str(tiny_base), "cpu")
    before = logits(model)
    under = get_peft_model(model, adapter_config(settings_of("bottleneck", adapter_layout=layout), "CAUSAL_LM"))
    assert torch.equal(logits(under), before)
    layers = [module for module in under.modules() if isinstance(module, BottleneckLayer)]
    assert len(layers) == places  # two layers of the model
    assert all(layer.bottleneck_down["default"].out_features == 32 // 4 for layer in layers)
    trained = [name for name, parameter in under.named_parameters() if parameter.requires_grad]
    assert trained and all("bottleneck_" in name for name in trained)


@pytest.mark.parametrize("kind", ["GPT2", "GPTNeoX", "OPT", "Qwen2"])
def test_a_bottleneck_finds_its_places_in_other_families(kind: str) -> None:
    import torch
    import transformers
    from peft import get_peft_model

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    extra = {"OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "GPT2": {}, "Qwen2": {"num_key_value_heads": 2}}
    config = getattr(transformers, f"{kind}Config")(**small, **extra.get(kind, {"intermediate_size": 64}))
    model = getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).eval()
    before = logits(model)
    under = get_peft_model(model, BottleneckConfig(reduction=4, task_type="CAUSAL_LM"))
    assert torch.equal(logits(under), before)
    assert sum(isinstance(module, BottleneckLayer) for module in under.modules()) == 4


def test_a_model_of_an_unknown_family_is_refused_by_name() -> None:
    import torch
    from peft import get_peft_model

    class Odd(torch.nn.Module):
        config = {"model_type": "odd"}

        def __init__(self) -> None:
            super().__init__()
            self.thing = torch.nn.Linear(4, 4)

    with pytest.raises(InvalidInput, match="type 'odd'.*Choose lora"):
        get_peft_model(Odd(), BottleneckConfig())
    with pytest.raises(InvalidInput, match=r"no adapter layout 'sideways'\. Valid: houlsby, pfeiffer"):
        BottleneckConfig(layout="sideways")


def disturb(model: Any, seed: int) -> None:
    """Give every active trainable weight a random push, as training would."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)


def test_bottlenecks_are_named_and_several_share_one_base(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model

    model, _ = load_base(str(tiny_base), "cpu")
    base = logits(model)
    under = get_peft_model(model, adapter_config(settings_of("bottleneck"), "CAUSAL_LM"))
    disturb(under, 1)
    first = logits(under)
    adapter_writer(under)(tmp_path / "first")
    under.add_adapter("value", adapter_config(settings_of("bottleneck"), "CAUSAL_LM"))
    assert torch.equal(logits(under), first)  # a further adapter changes nothing until it is chosen
    under.set_adapter("value")
    assert torch.equal(logits(under), base)
    disturb(under, 2)
    second = logits(under)
    assert not torch.allclose(second, first, atol=1e-3)
    with under.disable_adapter():
        assert torch.equal(logits(under), base)
    under.set_adapter("default")
    assert torch.equal(logits(under), first)

    fresh, _ = load_base(str(tiny_base), "cpu")
    loaded = attach_adapter(fresh, tmp_path / "first")
    assert torch.equal(logits(loaded), first)
    loaded = attach_adapter(loaded, tmp_path / "first", name="again")
    loaded.set_adapter("again")
    assert torch.equal(logits(loaded), first)


def test_one_adapter_never_trains_another(tiny_base: Path) -> None:
    from peft import get_peft_model

    model, _ = load_base(str(tiny_base), "cpu")
    under = get_peft_model(model, adapter_config(settings_of("bottleneck"), "CAUSAL_LM"))
    under.add_adapter("value", adapter_config(settings_of("bottleneck"), "CAUSAL_LM"))
    import torch

    under(input_ids=torch.tensor([IDS])).logits.sum().backward()
    reached = {name for name, parameter in under.named_parameters() if parameter.grad is not None}
    assert reached and all(".default." in name for name in reached)


@pytest.mark.slow_except("lora")
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_of_each_kind_is_trained_saved_and_loaded(
    make_context: Any, dataset: str, tiny_base: Path, kind: str
) -> None:
    import torch

    config = {"dataset": dataset, "name": f"p-{kind}", "adapter": kind, "lora_rank": 4, "reduction": 4, **QUICK}
    context = make_context("dpo", config)
    METHODS["dpo"].run(context)
    manifest = read_manifest(context.home.checkpoints / f"p-{kind}")
    assert manifest.adapter.kind == {"rslora": "LORA", "dora": "LORA"}.get(kind, kind.upper())
    policy = open_policy(context.db, context.home, f"p-{kind}", "cpu")  # refuses unless the probe agrees
    bare, _ = load_base(str(tiny_base), "cpu")
    with policy.reference() as model:
        assert torch.equal(logits(model), logits(bare))
    assert not torch.allclose(logits(policy.model), logits(bare), atol=1e-3)
    before = logits(policy.model)
    assert sample(policy, [[{"role": "user", "content": "hi"}]], 1)[0][0].tokens >= 0
    torch.testing.assert_close(logits(policy.model), before, atol=1e-5, rtol=1e-5)  # folded there and back


@pytest.mark.slow_except("lora")
@pytest.mark.parametrize("kind", [*KINDS, "pissa", "olora"])
def test_a_reward_model_of_each_kind_keeps_its_head(make_context: Any, dataset: str, kind: str) -> None:
    config = {"dataset": dataset, "name": f"r-{kind}", "adapter": kind, "lora_rank": 4, "reduction": 4, **QUICK}
    context = make_context("reward", config)
    METHODS["reward"].run(context)
    reward = open_reward(context.db, context.home, f"r-{kind}", "cpu")
    assert reward.model.num_labels == 1


BARE = """
import sys, json, torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM
base, adapter, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor([ids])).logits, sys.argv[4])
assert not any(name.partition(".")[0] in ("training", "studio", "feedback") for name in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_peft_loads_what_it_knows_and_gives_the_same_logits(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, kind: str
) -> None:
    import torch

    outcome = train_dpo(str(tiny_base), None, pairs, settings_of(kind), tmp_path / "t", LocalProgress(), device="cpu")
    adapter_writer(outcome.model)(tmp_path / "saved")
    arguments = [str(tiny_base), str(tmp_path / "saved"), json.dumps(IDS), str(tmp_path / "logits.pt")]
    subprocess.run(
        [sys.executable, "-I", "-c", BARE, *arguments], check=True, capture_output=True, cwd=tmp_path, timeout=300
    )
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), logits(outcome.model), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ia3", "bottleneck", "lora"])
def test_training_on_begins_at_the_parent_and_not_at_the_bare_base(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, kind: str
) -> None:
    outcome = train_dpo(str(tiny_base), None, pairs, settings_of(kind), tmp_path / "a", LocalProgress(), device="cpu")
    adapter_writer(outcome.model)(tmp_path / "parent")
    progress = LocalProgress()
    on = settings_of(kind, min_steps=1, embedding_noise=0.0, anchor=0.0)
    train_dpo(str(tiny_base), tmp_path / "parent", pairs, on, tmp_path / "b", progress, device="cpu")
    first = {point.name: point.value for point in progress.points if point.step == 1}
    assert first["chosen_reward"] == pytest.approx(0.0, abs=1e-4)  # the log-ratio to the parent
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_copying_reaches_bare_vectors_too(tiny_base: Path) -> None:
    import torch
    from peft import get_peft_model

    model, _ = load_base(str(tiny_base), "cpu")
    under = get_peft_model(model, adapter_config(settings_of("ia3"), "CAUSAL_LM"))
    disturb(under, 3)
    moved = logits(under)
    under.add_adapter("ref", adapter_config(settings_of("ia3"), "CAUSAL_LM"))
    copy_adapter(under, "default", "ref")
    under.set_adapter("ref")
    assert torch.equal(logits(under), moved)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_kinds_that_change_the_base_are_refused_where_it_is_the_reference(kind: str) -> None:
    with pytest.raises(UnknownSetting, match=f"adapter={kind} takes its start out of the base's own weights.*dpo"):
        parse_settings("dpo", {"dataset": "d", "adapter": kind})
    assert parse_settings("reward", {"dataset": "d", "adapter": kind}).adapter == kind


def test_a_bottleneck_is_not_folded(tiny_base: Path) -> None:
    from peft import get_peft_model

    model, tokenizer = load_base(str(tiny_base), "cpu")
    under = get_peft_model(model, adapter_config(settings_of("bottleneck"), "CAUSAL_LM"))
    assert not can_fold(under)
    with LoadedPolicy(under, tokenizer, str(tiny_base)).for_sampling() as unfolded:
        assert unfolded is under
    with pytest.raises(InvalidInput, match="not linear"):
        next(module for module in under.modules() if isinstance(module, BottleneckLayer)).merge()


def test_fewer_bits_need_a_library_that_is_named(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.loading.find_spec", lambda name: None)
    for load in (load_base, load_scorer):
        with pytest.raises(InvalidInput, match="quantize=4bit needs bitsandbytes.*pip install bitsandbytes"):
            load(str(tiny_base), "cpu", quantize="4bit")


def test_the_manifest_says_in_plain_values_what_was_set_up() -> None:
    config = adapter_config(settings_of("bottleneck", adapter_layout="pfeiffer"), "CAUSAL_LM").to_dict()
    assert Adapter.of(config) == Adapter(kind="BOTTLENECK", settings={"layout": "pfeiffer", "reduction": 4})
    assert Adapter.of(adapter_config(settings_of("dora"), "CAUSAL_LM").to_dict()).settings["dora"] is True
    rewarded = RewardSettings(dataset="d", adapter="pissa")
    assert Adapter.of(adapter_config(rewarded, "SEQ_CLS").to_dict()).settings["start"] == "pissa"
    assert len(IDS) < WINDOW


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_what_was_trained_over_fewer_bits_is_loaded_over_fewer_bits(
    make_context: Any, dataset: str, method: str
) -> None:
    """In 8 bits: 4 come in blocks of 64 weights, which the tiny base is too narrow for."""
    pytest.importorskip("bitsandbytes", reason="quantised bases need bitsandbytes, which is not installed")
    context = make_context(method, {"dataset": dataset, "name": "few-bits", "quantize": "8bit", **QUICK})
    METHODS[method].run(context)
    opened = (open_policy if method == "dpo" else open_reward)(context.db, context.home, "few-bits", "cpu")
    kinds = {type(module).__name__ for module in opened.model.modules()}
    assert "Linear8bitLt" in kinds
    assert not can_fold(opened.model)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_weights_that_mamba_kernels_read_past_an_adapter_have_none(kind: str) -> None:
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    mamba = {f"mamba_{name}": size for name, size in {"d_ssm": 32, "n_heads": 4, "d_head": 8, "d_state": 8}.items()}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("falcon_h1", vocab_size=64, num_key_value_heads=1, head_dim=8, **sizes, **mamba)
    model = AutoModelForCausalLM.from_config(config)
    under = get_peft_model(model, adapter_config(settings_of(kind), "CAUSAL_LM", model))
    adapted = {name.rpartition(".lora_A")[0] for name, _ in under.named_parameters() if ".lora_A" in name}
    assert any(name.endswith("mamba.in_proj") for name in adapted) and any("o_proj" in name for name in adapted)
    assert not any(name.endswith("mamba.out_proj") for name in adapted)


def test_a_model_without_such_layers_excludes_nothing(tiny_base: Path) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    assert adapter_config(settings_of("lora"), "CAUSAL_LM", model).exclude_modules is None
