"""The one place that makes an adapter from settings: PEFT's kinds, and a bottleneck adapter of our own.

The bottleneck (Houlsby et al. 2019, arXiv 1902.00751) is a small network behind a sublayer, added to what it is
given: ``y + up(gelu(down(y)))``. Houlsby's layout puts one behind attention and one behind the MLP of every layer,
Pfeiffer's (arXiv 2005.00247) behind the MLP alone. ``up`` begins at zero, so that step 0 is the base exactly. It is
written as a tuner of PEFT, which makes it what every other kind is here: named, several on one base, switched off
for the reference, kept as safetensors beside its configuration. Plain PEFT does not know it: reading it back needs
this module. It is not linear, so it cannot be folded into the base.

A reference is the base with its adapters off. Kinds that take their start out of the base's own weights (PiSSA,
OLoRA) leave another base behind, which ``training.settings.train`` refuses where a reference is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model_state_dict
from peft.tuners.ia3 import IA3Layer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open

from feedback.errors import CheckpointError
from training.adapters.bottleneck import AFTER_MLP, BottleneckConfig, BottleneckLayer
from training.settings.train import TrainSettings

# IA³ rescales keys, values and what goes into the MLP's last projection.
SCALED = r".*\.(?:k_proj|v_proj|key|value|query_key_value|c_attn)"
# The kernels of Mamba layers read these weights past any adapter on them, so that it would train and change nothing.
PAST_ADAPTERS = r".*\.(?:mamba|mixer)\.(?:out_proj|conv1d)"
# The frozen copy of the parent that TRL's trainers put beside the adapter they train.
TRL_REFERENCE = "ref"
# AdaLoRA plans by the length of the run, which is known when training begins: see ``adalora_callback``.
UNKNOWN_STEPS = 1_000_000


def adapter_config(settings: TrainSettings, task: str, model: Any = None) -> PeftConfig:
    """The adapter that the settings ask for, as PEFT's configuration; ``task`` is PEFT's name of what is learnt.

    SEQ_CLS makes PEFT save the head beside the adapter. Of a ``model`` with Mamba layers, weights are left out that its
    kernels read past an adapter.
    """
    shared: dict[str, Any] = {"task_type": TaskType(task)}
    if settings.adapter == "bottleneck":
        return BottleneckConfig(layout=settings.adapter_layout, reduction=settings.reduction, **shared)
    if settings.adapter == "ia3":
        feedforward = rf".*\.{AFTER_MLP}"
        return IA3Config(target_modules=rf"(?:{SCALED}|{feedforward})", feedforward_modules=feedforward, **shared)
    lora = {"target_modules": "all-linear", "lora_alpha": settings.lora_alpha, "lora_dropout": 0.0, **shared}
    if model is not None and any(re.fullmatch(PAST_ADAPTERS, name) for name, _ in model.named_modules()):
        lora["exclude_modules"] = PAST_ADAPTERS
    if settings.adapter == "adalora":
        # It begins wider and gives up the directions that matter least; a third of them, as the paper does.
        start = max(settings.lora_rank + 1, round(1.5 * settings.lora_rank))
        return AdaLoraConfig(init_r=start, target_r=settings.lora_rank, total_step=UNKNOWN_STEPS, **lora)
    kinds: dict[str, dict[str, Any]] = {
        "rslora": {"use_rslora": True},
        "dora": {"use_dora": True},
        "pissa": {"init_lora_weights": "pissa"},
        "olora": {"init_lora_weights": "olora"},
    }
    return LoraConfig(r=settings.lora_rank, **lora, **kinds.get(settings.adapter, {}))


def adapter_writer(model: Any) -> Callable[[Path], None]:
    """Writes what was trained into a directory: the adapter, its head where it has one, further members beside it."""

    def write(directory: Path) -> None:
        # The vocabulary is the base's; finding that out by itself, PEFT would ask the hub
        learnt = [name for name in model.peft_config if name != TRL_REFERENCE]
        model.save_pretrained(str(directory), save_embedding_layers=False, selected_adapters=learnt)

    return write


def attach_adapter(model: Any, directory: Path, *, trainable: bool = False, name: str = "default") -> Any:
    """The model under the adapter saved in a directory, of whatever kind; a further ``name`` goes beside the first."""
    attached = model
    if isinstance(model, PeftModel):
        model.load_adapter(str(directory), adapter_name=name, is_trainable=trainable, local_files_only=True)
    else:
        attached = PeftModel.from_pretrained(
            model, str(directory), adapter_name=name, is_trainable=trainable, local_files_only=True
        )
    _refuse_unfit_weights(attached, directory, name)
    return attached if trainable else attached.eval()


def _refuse_unfit_weights(model: Any, directory: Path, name: str) -> None:
    """Refuse an adapter whose file lacks weights, which PEFT would leave at random, or holds some without a place."""
    path = directory / SAFETENSORS_WEIGHTS_NAME
    if not path.is_file():  # of plain PEFT, in an older form
        return
    with safe_open(path, framework="numpy") as file:
        found = set(file.keys())
    expected = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    for keys, says in ((expected - found, "lacks"), (found - expected, "has no place in its base for")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(
                f"The adapter in {directory} does not fit its base: it {says} {min(keys)}{more}. It is not loaded; "
                "train it again, or bring it from a backup."
            )


def can_fold(model: Any) -> bool:
    """Whether the adapters can be folded into the base's weights and taken out again.

    Not bottlenecks, not IA³ (taken out by a division, which a factor near 0 makes inexact), and not where the base
    is held in fewer than 32 bits.
    """
    quantised = getattr(model.config, "quantization_config", None) is not None
    beside = (BottleneckLayer, IA3Layer)
    return not quantised and model.dtype.itemsize >= 4 and not any(isinstance(x, beside) for x in model.modules())


def copy_adapter(model: Any, source: str, target: str) -> None:
    """Make one named adapter the exact copy of another on the same base, heads included.

    Names are matched with and without a layer behind them: IA³ keeps bare vectors (``ia3_l.default``).
    """
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        other = re.sub(rf"\.{re.escape(source)}(?=\.|$)", f".{target}", name)
        if other != name and other in weights:
            weights[other].data.copy_(weight.data)


def adalora_callback(model: Any) -> Any | None:
    """What AdaLoRA needs at every step: the budget of ranks handed out anew. None for every other kind."""
    tuner: Any = getattr(model, "base_model", None)
    if not hasattr(tuner, "update_and_allocate"):
        return None
    from transformers import TrainerCallback

    class Allocate(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            config = tuner.peft_config["default"]
            config.total_step = max(state.max_steps, 4)
            # The last tenth runs on the ranks that are left, so that what is saved was trained as it is.
            config.tinit, config.tfinal = config.total_step // 5, max(1, config.total_step // 10)
            tuner.rankallocator.set_total_step(config.total_step)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tuner.update_and_allocate(state.global_step + 1)

    return Allocate()
