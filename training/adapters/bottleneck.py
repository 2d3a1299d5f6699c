"""The bottleneck adapter: a small MLP after attention or MLP of each layer of a frozen base."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from feedback.errors import InvalidInput

BOTTLENECK = "BOTTLENECK"
PREFIX = "bottleneck_"
# The projections that end attention and MLP, as the families of models name them.
AFTER_ATTENTION = r"(?:self_attn|self_attention|attention|attn)\.(?:o_proj|out_proj|c_proj|dense|wo)"
AFTER_MLP = r"(?:(?:mlp|feed_forward|block_sparse_moe)\.(?:down_proj|c_proj|fc_out|fc2|dense_4h_to_h|w2)|\d+\.fc2)"
LAYOUTS = {"houlsby": rf".*\.(?:{AFTER_ATTENTION}|{AFTER_MLP})", "pfeiffer": rf".*\.{AFTER_MLP}"}


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


def _output_size(layer: nn.Module) -> int:
    """Width of what a projection gives: ``Linear`` (quantised ones too) or GPT-2's ``Conv1D``."""
    size = getattr(layer, "out_features", None) or getattr(layer, "nf", None)
    if size is None:
        raise InvalidInput(f"A bottleneck adapter cannot stand behind a {type(layer).__name__}. Choose lora.")
    return int(size)
