"""Every method learns the same through the packed forward as through the model's own, with every kind of adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.datasets.examples import Demonstration, LabelledReply
from feedback.types import PreferencePair
from tests.training.tiny_models import model_at
from training.forward.trainer_forward import TrainerForward
from training.methods.dpo import train_dpo
from training.methods.kto import train_kto
from training.methods.reward import train_reward
from training.methods.sft import train_sft
from training.reporting.reporter import LocalProgress, Watch
from training.settings.dpo import DpoSettings
from training.settings.kto import KtoSettings
from training.settings.reward import RewardSettings
from training.settings.sft import SftSettings

SHARED: dict[str, Any] = {
    "dataset": "d", "epochs": 1, "min_steps": 4, "batch_size": 4, "learning_rate": 5e-3, "embedding_noise": 0.0,
}  # fmt: skip
METHODS = ("dpo", "kto", "sft", "reward")


def train(method: str, base: Path, pairs: Sequence[PreferencePair], directory: Path, **more: Any) -> Any:
    """A method on some pairs: the trained model, and what was reported."""
    progress = LocalProgress()
    where: Any = (str(base), None)
    rows: list[Any] = list(pairs)
    if method == "dpo":
        outcome: Any = train_dpo(*where, rows, DpoSettings(**SHARED | more), directory, progress, device="cpu")
    elif method == "kto":
        rows = [
            LabelledReply(prompt_id=pair.prompt_id, messages=pair.messages, reply=text, good=good)
            for pair in pairs
            for text, good in ((pair.chosen, True), (pair.rejected, False))
        ]
        outcome = train_kto(*where, rows, KtoSettings(**SHARED | more), directory, progress, device="cpu")
    elif method == "sft":
        rows = [
            Demonstration(prompt_id=pair.prompt_id, messages=pair.messages, reply=pair.chosen, origin="chosen")
            for pair in pairs
        ]
        outcome = train_sft(*where, rows, SftSettings(**SHARED | more), directory, progress, device="cpu")
    else:
        outcome = train_reward(str(base), rows, RewardSettings(**SHARED | more), directory, progress, device="cpu")
        return outcome.reward.model, progress
    return outcome.model, progress


def curve(progress: LocalProgress, name: str = "loss") -> list[float]:
    return [point.value for point in progress.points if point.name == name]


@contextmanager
def plain(_: TrainerForward, __: Any) -> Iterator[None]:
    """In the place of ``TrainerForward.of``: the model computes as transformers and TRL do."""
    yield


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_the_models_own_forward(
    method: str, tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packed = train(method, tiny_base, pairs, tmp_path / "packed")
    monkeypatch.setattr(TrainerForward, "of", plain)
    _, usual = train(method, tiny_base, pairs, tmp_path / "usual")
    assert len(curve(packed)) == 4 and curve(packed)[-1] != curve(packed)[0]
    for name in ("loss", "gradient_norm", "entropy", "accuracy", "token_accuracy"):
        assert curve(packed, name) == pytest.approx(curve(usual, name), rel=1e-4, abs=1e-6), name


KINDS = ("lora", "rslora", "dora", "ia3", "adalora", "bottleneck")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_trains_in_bf16_and_leaves_the_base_as_it_was(
    kind: str, tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    from training.models.loading import load_base

    before = {name: value.clone() for name, value in load_base(str(tiny_base), "cpu")[0].state_dict().items()}
    exact = curve(train("dpo", tiny_base, pairs, tmp_path / "fp32", adapter=kind, precision="fp32")[1])
    model, progress = train("dpo", tiny_base, pairs, tmp_path / "bf16", adapter=kind, precision="bf16")
    found = curve(progress)
    assert found == pytest.approx(exact, rel=0.02) and found != exact
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained and all(parameter.dtype is torch.float32 for parameter in trained)
    base = {name.replace(".base_layer", ""): value for name, value in model.get_base_model().state_dict().items()}
    kept = [name for name in before if name in base]
    assert len(kept) > 10
    assert all(torch.equal(base[name], before[name]) for name in kept)
    computes_in_fp32(model)


def computes_in_fp32(model: Any) -> None:
    """Its forward is its class's own again: a probe measured through autocast would refuse the checkpoint."""
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, type(model).forward(model, ids).logits)


@pytest.mark.parametrize("kind", ["lora", "pissa", "olora"])
def test_a_reward_model_trains_in_bf16(kind: str, tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    exact = curve(train("reward", tiny_base, pairs, tmp_path / "fp32", adapter=kind, precision="fp32")[1])
    model, progress = train("reward", tiny_base, pairs, tmp_path / "bf16", adapter=kind, precision="bf16")
    found = curve(progress)
    assert found == pytest.approx(exact, rel=0.1) and found != exact
    computes_in_fp32(model)


def test_sample_replies_are_drawn_in_bf16_too(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    said = []

    class Watching(LocalProgress):
        def samples(self, step: int, texts: Any) -> None:
            said.append(step)

    progress = Watching()
    progress.watch = Watch(sample_every=2, prompts=([{"role": "user", "content": "hi"}],))
    settings = DpoSettings(**SHARED, precision="bf16")
    train_dpo(str(tiny_base), None, pairs, settings, tmp_path, progress, device="cpu")
    assert said == [0, 2, 4]


def test_a_model_that_cannot_read_packed_rows_says_so_once(pairs: list[PreferencePair], tmp_path: Path) -> None:
    base = model_at(tmp_path / "base", "bloom")
    _, progress = train("dpo", base, pairs, tmp_path / "run")
    said = [line for line in progress.lines if "packed rows" in line]
    assert said == ["a bloom model cannot read packed rows: its batches are computed with their padding"]
    assert len(curve(progress)) == 4
