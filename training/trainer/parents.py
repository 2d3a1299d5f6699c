"""May a run train on from this parent? A parent that has an adapter passes it on; no second one is put over it.

Asked when the run is queued, and again before it loads anything, since a parent may be another run's promise.
"""

from __future__ import annotations

from feedback.errors import InvalidInput
from training.settings.train import TrainSettings

# What PEFT calls the adapters of each choice, where that is not the choice in capitals.
KINDS = {"rslora": "LORA", "dora": "LORA", "pissa": "LORA", "olora": "LORA"}


def check_trains_on(name: str, base: str, kind: str, settings: TrainSettings) -> None:
    """Refuse a parent whose adapter, of PEFT's ``kind``, cannot be trained on as the settings ask; with the reason."""
    if not settings.CONTINUES_PARENT:
        return
    if kind == "ADALORA":
        raise InvalidInput(
            f"{name} is an AdaLoRA adapter, which cannot be trained on: it gave up ranks as it learnt, and they cannot "
            f"be handed out anew. Start from its base {base!r}, or train that parent with another adapter."
        )
    asked = KINDS.get(settings.adapter, settings.adapter.upper())
    if "adapter" in settings.model_fields_set and asked != kind:
        raise InvalidInput(
            f"adapter={settings.adapter} cannot be had here: {name} has an adapter of the kind {kind.lower()}, which "
            f"is trained on. Leave adapter out, or start from its base {base!r}."
        )
