"""Weights in ``.bin`` files: read as tensors alone, whole or in shards, and never run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotFound
from tests.training.tiny_models import model_at
from training.checkpoints.base_check import examine_base
from training.checkpoints.hashing import describe_base
from training.models.loading import load_base

LOADS = (load_base, examine_base)


class Hostile:
    """Makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, Any]:
    """The tensors of a model whose directory has no weights yet."""
    from safetensors.torch import load_file

    path = model_at(tmp_path / "base") / "model.safetensors"
    found = load_file(path)
    path.unlink()
    return found


@pytest.fixture
def base(tmp_path: Path, tensors: dict[str, Any]) -> Path:
    return tmp_path / "base"


def save_shards(base: Path, tensors: dict[str, Any]) -> list[Path]:
    import torch

    names = sorted(tensors)
    shards = [base / f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    for number, path in enumerate(shards):
        torch.save({name: tensors[name] for name in names[number::2]}, path)
    places = {name: shards[place % 2].name for place, name in enumerate(names)}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return shards


@pytest.mark.parametrize("zipped", [True, False])
def test_one_file_loads(base: Path, tensors: dict[str, Any], zipped: bool) -> None:
    import torch

    torch.save(tensors, base / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    model, _ = load_base(str(base), "cpu")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in tensors.items())
    assert examine_base(str(base)).is_complete


def test_shards_load_and_change_the_hash_of_the_base(base: Path, tensors: dict[str, Any]) -> None:
    import torch

    first, second = save_shards(base, tensors)
    model, _ = load_base(str(base), "cpu")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in tensors.items())
    before = describe_base(str(base))
    torch.save({name: value + 1 for name, value in torch.load(second, weights_only=True).items()}, second)
    assert describe_base(str(base)) != before
    first.unlink()
    for how in LOADS:
        with pytest.raises(NotFound, match=first.name):
            how(str(base))


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_is_more_than_tensors_is_not_opened(
    how: Callable[[str], Any], zipped: bool, base: Path, tensors: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    hostile = {**tensors, "x": Hostile(tmp_path / "ran")}
    if zipped:
        torch.save(hostile, base / "pytorch_model.bin")
    else:
        (base / "pytorch_model.bin").write_bytes(pickle.dumps(hostile, protocol=2))
    with pytest.raises(NotFound, match=r"pytorch_model.bin holds more than tensors.*safetensors") as told:
        how(str(base))
    assert "weights_only" not in str(told.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", LOADS)
def test_a_shard_that_was_cut_off_is_named(how: Callable[[str], Any], base: Path, tensors: dict[str, Any]) -> None:
    _, second = save_shards(base, tensors)
    second.write_bytes(second.read_bytes()[:400])
    with pytest.raises(NotFound, match=f"{second.name} is damaged or was cut off"):
        how(str(base))
