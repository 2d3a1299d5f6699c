"""Tiny random policies of the families that are exported: real tokenizers, real adapters, real checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.store.models.checkpoints import save_checkpoint as save_checkpoint_row
from feedback.store.models.policies import get_policy, save_policy
from feedback.tables import PolicyRow
from feedback.types import Checkpoint, Policy
from tests.training.families import FAMILIES, TEXT, save_model, tokenizer_of
from training.adapters.build import adapter_config
from training.checkpoints.hashing import describe_base
from training.checkpoints.manifest import Adapter, Manifest, library_versions
from training.checkpoints.probe import measure_probe
from training.checkpoints.saving import save_checkpoint
from training.export.gguf_vocabulary import PRE_TOKENIZERS, PROBE_TEXT
from training.home import Home
from training.models.loading import load_base
from training.settings.dpo import DpoSettings
from training.trainer.running import adapter_writer

MakePolicy = Callable[..., PolicyRow]


def tokenizer_split_as(name: str, family: str = "qwen2_5", template: str | None = None) -> Any:
    """A byte-level BPE tokenizer that splits text as llama.cpp does under that name."""
    from tokenizers import Tokenizer

    parts, ignores_merges = PRE_TOKENIZERS[name]
    tokenizer = tokenizer_of(FAMILIES[family], template)
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = json.loads(_merges_across_everything())
    described["added_tokens"] = [
        {**token, "id": len(model["vocab"]) + place} for place, token in enumerate(described["added_tokens"])
    ]
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    described["model"] = {**model, "ignore_merges": ignores_merges}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))
    return tokenizer


@cache
def _merges_across_everything() -> str:
    """A BPE model as JSON whose tokens span words, digits and spaces, so that each splitting gives other tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    words = [PROBE_TEXT[start : start + 7] for start in range(len(PROBE_TEXT))]
    core.train_from_iterator([*words, *(TEXT[start : start + 9] for start in range(0, len(TEXT), 3))], trainer)
    return json.dumps(json.loads(core.to_str())["model"])


def adapt(model: Any, kind: str) -> Any:
    """The model under a random adapter of a kind, which changes what it says."""
    import torch
    from peft import get_peft_model

    settings = DpoSettings(dataset="d", adapter=kind, lora_rank=4, reduction=4)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        under = get_peft_model(model, adapter_config(settings, "CAUSAL_LM"))
        for name, weight in under.named_parameters():
            if any(part in name for part in ("lora_B", "lora_E", "ia3_", "bottleneck_up")):
                weight.add_(torch.randn_like(weight) * 0.3)
    return under.eval()


@pytest.fixture(scope="session")
def smol_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a real byte-level BPE tokenizer, ChatML and single digits, as SmolLM2 is."""
    return save_model(tmp_path_factory.mktemp("bases") / "smol-like", tokenizer_split_as("smollm", "qwen2_5", CHATML))


CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def make_trained(db: Database, home: Home) -> MakePolicy:
    """Saves a policy under a random adapter: ``make_trained(base, kind="lora", name="child", **manifest)``."""

    def make(base: Path, kind: str = "lora", name: str = "child", **more: Any) -> PolicyRow:
        model, tokenizer = load_base(str(base), "cpu")
        under = adapt(model, kind)
        manifest = Manifest(
            kind="policy",
            name=name,
            base=str(base),
            base_hash=describe_base(str(base)),
            adapter=Adapter(kind="LORA"),
            versions=library_versions(),
            probe=measure_probe("policy", under, tokenizer),
            **{"method": "dpo", **more},
        )
        path = save_checkpoint(home, name, adapter_writer(under), manifest)
        row = save_checkpoint_row(
            db, Checkpoint(name=name, kind="policy", path=str(path.relative_to(home.path)), base=str(base))
        )
        save_policy(db, Policy(name=name, base=str(base), checkpoint_id=row.id))
        return get_policy(db, name)

    return make
