"""The README.md of a checkpoint: what it is, how it came to be, and what plain PEFT makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.adapters.bottleneck import BOTTLENECK

if TYPE_CHECKING:
    from training.checkpoints.manifest import Manifest

CARD_FILE = "README.md"
READ = {
    "last": "The score is taken at the last token of the exchange, its end token included.",
    "sum": "The score is the sum of a linear score over all tokens, divided by 32.",
    "mean": "The score is the mean of a linear score over all tokens.",
}


def model_card(manifest: Manifest, *, own_name: bool) -> str:
    """The card's text; ``own_name`` says that the head lies where plain PEFT does not look for it."""
    noun = "reward model" if manifest.kind == "reward" else "policy"
    came = [f"- base: `{manifest.base}`", f"- adapter: {manifest.adapter.kind}", f"- method: {manifest.method or '-'}"]
    came += [f"- {name}: `{value}`" for name, value in _origins(manifest).items() if value]
    parts = [
        "---\nlibrary_name: peft\ntags:\n- base_model:adapter\n---",
        f"# {manifest.name}",
        f"A {noun}: an adapter over a base model, trained by the studio. `manifest.json` beside this file has all "
        "settings, the versions of the libraries and the hash of each file.",
        "\n".join(came),
        "## Loading it",
        *_loading(manifest, own_name),
    ]
    return "\n\n".join(parts) + "\n"


def write_card(directory: Path, manifest: Manifest, *, own_name: bool) -> None:
    """Put the card in the place of PEFT's empty form."""
    (directory / CARD_FILE).write_text(model_card(manifest, own_name=own_name), encoding="utf-8")


def _origins(manifest: Manifest) -> dict[str, str | None]:
    return {
        "dataset": manifest.dataset,
        "parent": manifest.parent,
        "reference": manifest.reference,
        "run": manifest.run,
        "seed": str(manifest.seed),
    }


def _loading(manifest: Manifest, own_name: bool) -> list[str]:
    """What the studio's loader and plain PEFT make of the checkpoint, a paragraph each."""
    loader = "load_reward" if manifest.kind == "reward" else "load_policy"
    found = [
        f"`training.checkpoints.{loader}(directory)` loads it and checks that it does what it did when it was saved."
    ]
    if manifest.kind == "reward":
        found.append(READ[manifest.pooling])
    if manifest.members > 1:
        found.append(
            f"It is an ensemble of {manifest.members}: the score is the mean of the members' scores. The first member "
            "is in this directory, the others are in directories of their own beside it."
        )
    found.append(_plain_peft(manifest, own_name))
    return found


def _plain_peft(manifest: Manifest, own_name: bool) -> str:
    if manifest.adapter.kind == BOTTLENECK:
        return "Plain PEFT does not load it: it does not know this kind of adapter."
    if manifest.kind == "policy":
        return "Plain PEFT loads it over the base (`AutoModelForCausalLM`) and gives the same replies."
    if own_name:
        return (
            "**Plain PEFT does not load it**, and fails with a KeyError that names `score.weight`. A sequence "
            "classifier of transformers (`AutoModelForSequenceClassification`) would score something else with these "
            "weights: it reads the last token that is not the pad token, and nothing before it. So the head is stored "
            "under another name, `studio_head.score`. Renaming it makes the adapter load, and every score wrong."
        )
    alone = "the first member's scores" if manifest.members > 1 else "the same scores"
    return (
        "Plain PEFT loads it over the base (`AutoModelForSequenceClassification`, `num_labels=1`, with `pad_token_id` "
        f"of the configuration set to the tokenizer's) and gives {alone}."
    )
