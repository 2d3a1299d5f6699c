"""The one place that makes an adapter from settings: PEFT's kinds, and a bottleneck adapter of our own.

The bottleneck (Houlsby et al. 2019, arXiv 1902.00751) is a small network behind a sublayer, added to what it is
given: ``y + up(gelu(down(y)))``. Houlsby's layout puts one behind attention and one behind the MLP of every layer,
Pfeiffer's (arXiv 2005.00247) behind the MLP alone. ``up`` begins at zero, so that step 0 is the base exactly. It is
written as a tuner of PEFT, which makes it what every other kind is here: named, several on one base, switched off
for the reference, kept as safetensors beside its configuration. Plain PEFT does not know it: reading it back needs
this module. It is not linear, so it cannot be folded into the base.

A reference is the base with its adapters off. Kinds that take their start out of the base's own weights (PiSSA,
OLoRA) leave another base behind, which ``training.config`` refuses where a reference is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.ia3 import IA3Layer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from torch import nn

from feedback.errors import CheckpointError, InvalidInput
from training.config import TrainSettings

BOTTLENECK = "BOTTLENECK"
PREFIX = "bottleneck_"
# The projections that end attention and MLP, as the families of models name them.
AFTER_ATTENTION = r"(?:self_attn|self_attention|attention|attn)\.(?:o_proj|out_proj|c_proj|dense|wo)"
AFTER_MLP = r"(?:(?:mlp|feed_forward|block_sparse_moe)\.(?:down_proj|c_proj|fc_out|fc2|dense_4h_to_h|w2)|\d+\.fc2)"
LAYOUTS = {"houlsby": rf".*\.(?:{AFTER_ATTENTION}|{AFTER_MLP})", "pfeiffer": rf".*\.{AFTER_MLP}"}
# IA³ rescales keys, values and what goes into the MLP's last projection.
SCALED = r".*\.(?:k_proj|v_proj|key|value|query_key_value|c_attn)"
# The frozen copy of the parent that TRL's trainers put beside the adapter they train.
TRL_REFERENCE = "ref"
# AdaLoRA plans by the length of the run, which is known when training begins: see ``adalora_callback``.
UNKNOWN_STEPS = 1_000_000


@dataclass
class BottleneckConfig(PeftConfig):
    """How a bottleneck adapter is set up; ``target_modules`` is found from ``layout`` where it is None."""

    layout: str = field(default="houlsby", metadata={"help": "houlsby or pfeiffer"})
    reduction: int = field(default=16, metadata={"help": "the hidden size divided by the bottleneck's width"})
    target_modules: Any = field(default=None, metadata={"help": "the projections it stands behind, as a pattern"})
    exclude_modules: Any = field(default=None, metadata={"help": "modules left out of them"})
    modules_to_save: Any = field(default=None, metadata={"help": "modules trained and saved whole, as a head"})
    bias: str = field(default="none", metadata={"help": "the base's biases are never trained"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BOTTLENECK
        if self.layout not in LAYOUTS:
            raise InvalidInput(f"There is no adapter layout {self.layout!r}. Valid: {', '.join(LAYOUTS)}.")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A projection of the base with named bottlenecks behind it; (..., hidden) in and out."""

    adapter_layer_names = (f"{PREFIX}down", f"{PREFIX}up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add one more named bottleneck: small random weights down, zeros up."""
        width = _output_size(self.get_base_layer())
        inner = max(1, width // config.reduction)
        down, up = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.normal_(down.weight, std=0.02)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, hidden: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """What the base's projection gives, moved by each active bottleneck in turn."""
        result: torch.Tensor = self.base_layer(hidden, *rest, **named)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                moved = up(nn.functional.gelu(down(result.to(next(down.parameters()).dtype))))
                result = result + moved.to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused: a bottleneck is not linear."""
        raise InvalidInput("A bottleneck adapter cannot be folded into its base: it is not linear.")

    def unmerge(self) -> None:
        """Nothing was ever folded in."""


class BottleneckModel(BaseTuner):
    """A base with bottlenecks behind its projections, under PEFT's rules for named adapters."""

    prefix = PREFIX
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            pattern = LAYOUTS[peft_config.layout]
            if not any(re.fullmatch(pattern, name) for name, _ in self.model.named_modules()):
                raise InvalidInput(
                    f"It is not known where attention and MLP end in a model of type "
                    f"{model_config.get('model_type', 'unknown')!r}, so no bottleneck adapter fits. Choose lora."
                )
            peft_config.target_modules = pattern
        return peft_config

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)  # a further adapter is not trained by itself
        self._replace_module(parent, target_name, layer, target)


PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = PREFIX  # type: ignore[index]
PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel  # type: ignore[index]


def adapter_config(settings: TrainSettings, task: str) -> PeftConfig:
    """The adapter that the settings ask for, as PEFT's configuration; ``task`` is PEFT's name of what is learnt.

    SEQ_CLS makes PEFT save the head beside the adapter.
    """
    shared: dict[str, Any] = {"task_type": TaskType(task)}
    if settings.adapter == "bottleneck":
        return BottleneckConfig(layout=settings.adapter_layout, reduction=settings.reduction, **shared)
    if settings.adapter == "ia3":
        feedforward = rf".*\.{AFTER_MLP}"
        return IA3Config(target_modules=rf"(?:{SCALED}|{feedforward})", feedforward_modules=feedforward, **shared)
    lora = {"target_modules": "all-linear", "lora_alpha": settings.lora_alpha, "lora_dropout": 0.0, **shared}
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


def _output_size(layer: nn.Module) -> int:
    """Width of what a projection gives: ``Linear`` (quantised ones too) or GPT-2's ``Conv1D``."""
    size = getattr(layer, "out_features", None) or getattr(layer, "nf", None)
    if size is None:
        raise InvalidInput(f"A bottleneck adapter cannot stand behind a {type(layer).__name__}. Choose lora.")
    return int(size)
