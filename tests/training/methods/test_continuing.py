"""Going on from a parent: the reference is the parent the manifest names, never silently the bare base beneath it.

Each test stands for a way in which published trainers went wrong: the bare base taken for the reference of an adapter
(trl issues 495, 1340, 6591), a training that moved nothing (6700, 3926), the wrong adapter trained or saved
(peft issues 2759, 2765), activations recomputed under another adapter (2832), the policy's own log-probabilities cached
as the reference's (6527).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.datasets.examples import LabelledReply
from feedback.errors import InvalidInput
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy
from feedback.types import PreferencePair
from tests.training.conftest import token_exchange
from training.adapters.build import adapter_writer
from training.checkpoints.hashing import tensor_names
from training.checkpoints.loading import load_policy
from training.checkpoints.manifest import ADAPTER_FILE, read_manifest
from training.methods import METHODS
from training.methods.dpo import train_dpo
from training.methods.kto import train_kto
from training.methods.rloo import train_rloo
from training.methods.sft import train_sft
from training.models.loading import attach_adapter, load_base
from training.models.scoring import reply_log_probs
from training.reporting.reporter import LocalProgress
from training.rewards import functions
from training.runs.queue import submit
from training.settings.dpo import DpoSettings
from training.settings.kto import KtoSettings
from training.settings.rloo import RlooSettings
from training.settings.sft import SftSettings
from training.trainer.running import resume_point

SHARED: dict[str, Any] = {
    "min_steps": 4,
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "warmup": 0.0,
    "embedding_noise": 0.0,
    "save_every": 2,
}


SFTS = SHARED | {"min_steps": 12}


class Imitated:
    def __init__(self, pair: PreferencePair) -> None:
        self.messages, self.reply, self.cut = pair.messages, pair.chosen, False


def labelled(pairs: list[PreferencePair]) -> list[LabelledReply]:
    return [
        LabelledReply(prompt_id=pair.prompt_id, messages=pair.messages, reply=text, good=good)
        for pair in pairs
        for text, good in ((pair.chosen, True), (pair.rejected, False))
    ]


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def weights(model: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture
def parent(tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path) -> Path:
    """An adapter trained by SFT until it is far from its base."""
    settings = SftSettings(dataset="d", **SFTS)
    outcome = train_sft(
        str(tiny_base), None, list(map(Imitated, pairs)), settings, tmp_path / "sft", LocalProgress(), device="cpu"
    )
    outcome.model.save_pretrained(tmp_path / "parent")
    return tmp_path / "parent"


def mean_chosen(model: Any, tokenizer: Any, pairs: list[PreferencePair]) -> float:
    tokens = [token_exchange(tokenizer, pair.messages, pair.chosen) for pair in pairs]
    return sum(reply_log_probs(model, tokenizer.pad_token_id, tokens)) / len(tokens)


@pytest.mark.slow
def test_the_first_step_of_each_method_finds_no_distance_from_a_parent_with_an_adapter(
    tiny_base: Path, parent: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    base, tokenizer = load_base(str(tiny_base), "cpu")
    at_base = mean_chosen(base, tokenizer, pairs)
    at_parent = mean_chosen(attach_adapter(base, parent), tokenizer, pairs)
    assert at_parent > at_base + 1  # else the bare base would pass for the parent

    dpo, kto, rloo = LocalProgress(), LocalProgress(), LocalProgress()
    train_dpo(
        str(tiny_base),
        parent,
        pairs,
        DpoSettings(dataset="d", anchor=0.0, **SHARED),
        tmp_path / "dpo",
        dpo,
        device="cpu",
    )
    assert curve(dpo, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve(dpo, "chosen_log_prob")[0] == pytest.approx(at_parent, abs=1e-3)
    assert curve(dpo, "chosen_log_prob_change")[0] == pytest.approx(0.0, abs=1e-3)

    settings = KtoSettings(dataset="d", **SHARED | {"batch_size": 16})
    train_kto(str(tiny_base), parent, labelled(pairs), settings, tmp_path / "kto", kto, device="cpu")
    assert curve(kto, "good_reward")[0] == pytest.approx(0.0, abs=1e-4)
    assert curve(kto, "kl")[0] == pytest.approx(0.0, abs=1e-4)

    outcome = train_rloo(
        str(tiny_base), parent, asked(pairs), Letters(), drawn_settings(), tmp_path / "rloo", rloo, device="cpu"
    )
    distances = curve(rloo, "kl_per_token")
    assert distances[0] == pytest.approx(0.0, abs=1e-4)
    assert any(abs(distance) > 1e-4 for distance in distances[1:])
    assert list(outcome.model.peft_config) == ["default"]


class Letters:
    """Scores a reply by how often a letter is in it."""

    def score_all(self, exchanges: Any) -> list[float]:
        return [float(reply.count("z")) for _, reply in exchanges]


def drawn_settings(**more: Any) -> RlooSettings:
    shared = SHARED | {"batch_size": 16, "schedule": "constant", "samples": 8, "max_new_tokens": 12}
    del shared["embedding_noise"]  # which would make what is drawn another distribution than what is trained
    return RlooSettings(reward_function="no_repetition", **shared | more)


def asked(pairs: list[PreferencePair]) -> list[list[dict[str, Any]]]:
    return [[m.model_dump(mode="json") for m in pair.messages] for pair in pairs[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "bottleneck"])
@pytest.mark.parametrize("method", ["dpo", "kto", "rloo"])
def test_a_parent_under_any_kind_of_adapter_is_the_reference_itself(
    tiny_base: Path, pairs: list[PreferencePair], tmp_path: Path, method: str, kind: str
) -> None:
    far = SFTS | {"adapter": kind, "learning_rate": 0.1 if kind == "ia3" else 5e-3, "reduction": 4}
    start = SftSettings(dataset="d", **far)
    examples = list(map(Imitated, pairs))
    first = train_sft(str(tiny_base), None, examples, start, tmp_path / "sft", LocalProgress(), device="cpu")
    adapter_writer(first.model)(tmp_path / "parent")
    base, tokenizer = load_base(str(tiny_base), "cpu")
    at_base = mean_chosen(base, tokenizer, pairs)
    assert abs(mean_chosen(attach_adapter(base, tmp_path / "parent"), tokenizer, pairs) - at_base) > 1

    progress = LocalProgress()
    more: Any = {"device": "cpu"}
    where = (str(tiny_base), tmp_path / "parent")
    if method == "dpo":
        train_dpo(*where, pairs, DpoSettings(dataset="d", anchor=0.0, **SHARED), tmp_path / "t", progress, **more)
        assert curve(progress, "loss")[0] == pytest.approx(math.log(2), abs=1e-4)
    elif method == "kto":
        settings = KtoSettings(dataset="d", **SHARED | {"batch_size": 16})
        train_kto(*where, labelled(pairs), settings, tmp_path / "t", progress, **more)
        assert curve(progress, "good_reward")[0] == pytest.approx(0.0, abs=1e-3)
        assert curve(progress, "bad_reward")[0] == pytest.approx(0.0, abs=1e-3)
    else:
        train_rloo(*where, asked(pairs), Letters(), drawn_settings(), tmp_path / "t", progress, **more)
        assert curve(progress, "kl_per_token")[0] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto", "rloo"])
def test_recomputed_activations_learn_the_same_beside_a_reference(
    tiny_base: Path,
    parent: Path,
    pairs: list[PreferencePair],
    tmp_path: Path,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recomputed under the reference's adapter, activations would give the policy wrong gradients (peft issue 2832)."""

    def learn(name: str) -> dict[str, Any]:
        more: Any = {"device": "cpu"}
        where = (str(tiny_base), parent)
        if method == "dpo":
            settings = DpoSettings(dataset="d", **SHARED)
            return weights(train_dpo(*where, pairs, settings, tmp_path / name, LocalProgress(), **more).model)
        if method == "kto":
            kto = KtoSettings(dataset="d", **SHARED | {"batch_size": 16})
            return weights(train_kto(*where, labelled(pairs), kto, tmp_path / name, LocalProgress(), **more).model)
        drawn = drawn_settings(min_steps=3)
        progress = LocalProgress()
        return weights(train_rloo(*where, asked(pairs), Letters(), drawn, tmp_path / name, progress, **more).model)

    kept = learn("kept")
    monkeypatch.setattr("training.models.memory_estimate.USABLE", 0.0)
    recomputed = learn("recomputed")
    apart = {name: (kept[name] - recomputed[name]).abs().max().item() for name in kept}
    assert max(apart.values()) < 1e-4, max(apart, key=lambda name: apart[name])


@pytest.mark.slow
def test_an_adapter_that_cannot_be_trained_on_is_refused_with_the_reason(make_context: Any, dataset: str) -> None:
    quick = {"dataset": dataset, "min_steps": 2, "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    for name, kind in (("shrunk", "adalora"), ("wide", "bottleneck"), ("plain", "lora")):
        context = make_context("dpo", quick | {"name": name, "adapter": kind})
        METHODS["dpo"].run(context)
    for method in ("sft", "kto", "dpo"):
        on_shrunk = quick | {"parent": "shrunk"}
        with pytest.raises(InvalidInput, match=r"shrunk is an AdaLoRA adapter, which cannot be trained on.*its base"):
            submit(context.db, method, on_shrunk)
        with pytest.raises(InvalidInput, match="shrunk is an AdaLoRA adapter"):  # a parent that was only promised
            METHODS[method].run(make_context(method, on_shrunk))
    with pytest.raises(InvalidInput, match="adapter=lora cannot be had here: wide has an adapter of the kind bottlene"):
        submit(context.db, "dpo", quick | {"parent": "wide", "adapter": "lora"})
    assert submit(context.db, "dpo", quick | {"parent": "wide"}).config["parent"] == "wide"
    assert submit(context.db, "dpo", quick | {"parent": "wide", "adapter": "bottleneck"})
    assert submit(context.db, "dpo", quick | {"parent": "plain", "adapter": "rslora"})  # all of LoRA's kin
    assert submit(context.db, "reward", quick | {"parent": "shrunk", "adapter": "lora"})  # its base alone is used


@pytest.mark.slow_except("sft")
@pytest.mark.parametrize("method", ["dpo", "kto", "sft", "rloo"])
def test_only_the_adapter_moves_and_it_does_move(
    tiny_base: Path, parent: Path, pairs: list[PreferencePair], tmp_path: Path, method: str
) -> None:
    base, _ = load_base(str(tiny_base), "cpu")
    before = weights(attach_adapter(base, parent))
    arguments: tuple[Any, ...] = (tmp_path / "run", LocalProgress())
    started: dict[str, Callable[[], Any]] = {
        "dpo": lambda: train_dpo(
            str(tiny_base), parent, pairs, DpoSettings(dataset="d", **SHARED), *arguments, device="cpu"
        ),
        "kto": lambda: train_kto(
            str(tiny_base), parent, labelled(pairs), KtoSettings(dataset="d", **SHARED), *arguments, device="cpu"
        ),
        "sft": lambda: train_sft(
            str(tiny_base),
            parent,
            list(map(Imitated, pairs)),
            SftSettings(dataset="d", **SHARED),
            *arguments,
            device="cpu",
        ),
        "rloo": lambda: train_rloo(
            str(tiny_base), parent, asked(pairs), Letters(), drawn_settings(), *arguments, device="cpu"
        ),
    }
    after = weights(started[method]().model)
    assert set(after) == set(before)
    moved = {name for name in after if not after[name].equal(before[name])}
    assert moved == {name for name in after if ".default." in name}


@pytest.mark.slow
def test_a_run_that_goes_on_from_its_state_keeps_the_parent_as_its_reference(
    tiny_base: Path, parent: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    class Cut(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 3:
                raise KeyboardInterrupt

    settings = DpoSettings(dataset="d", **SHARED)
    whole, resumed = LocalProgress(), LocalProgress()
    train_dpo(str(tiny_base), parent, pairs, settings, tmp_path / "whole", whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_dpo(str(tiny_base), parent, pairs, settings, tmp_path / "cut", Cut(), device="cpu")
    assert resume_point(tmp_path / "cut", 2) is not None
    train_dpo(str(tiny_base), parent, pairs, settings, tmp_path / "cut", resumed, attempt=2, device="cpu")
    # Were the reference computed after the state was loaded, the change would begin at nought again
    assert curve(resumed, "chosen_log_prob_change") == pytest.approx(
        curve(whole, "chosen_log_prob_change")[2:], abs=1e-4
    )
    assert curve(resumed, "loss") == pytest.approx(curve(whole, "loss")[2:], abs=1e-5)


@pytest.mark.slow
def test_a_family_of_policies_each_names_its_parent_as_its_reference(
    make_context: Any, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        functions, "_registered", lambda: {"letters": lambda: lambda prompt, reply: float(len(set(reply)))}
    )
    quick = {"dataset": dataset, "min_steps": 2, "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    drawn = {"reward_function": "letters", "samples": 4, "max_new_tokens": 60}
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("first", "sft", {}),
        ("second", "dpo", {}),
        ("third", "dpo", {"loss": "ipo"}),
        ("fourth", "kto", {}),
        ("fifth", "rft", drawn | {"samples": 12}),
        ("sixth", "rloo", drawn),
    ]
    before, context = "tiny", None
    for name, method, extra in steps:
        context = make_context(method, quick | extra | {"name": name, "parent": before})
        METHODS[method].run(context)
        row, own = get_policy(context.db, name), get_policy(context.db, before)
        directory = context.home.path / get_checkpoint(context.db, name).path
        manifest = read_manifest(directory)
        assert row.parent_id == manifest.parent == own.id
        assert manifest.reference == (None if method in ("sft", "rft") else own.id)
        # One adapter, loadable as it was measured, without a copy of its parent inside
        assert load_policy(directory, device="cpu").has_adapter
        assert not [tensor for tensor in tensor_names(directory / ADAPTER_FILE) if ".ref" in tensor]
        assert [path.name for path in directory.iterdir() if path.is_dir()] == []
        before = name
