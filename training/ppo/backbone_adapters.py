"""LoRA and its kin as the adapters of roles: several PEFT adapters by name over one base, one active at a time.

PEFT flips gradient flags whenever an adapter is switched; here they are off from the start, switching leaves them
alone, and only ``training.ppo.backbone`` turns some on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import CheckpointError, InvalidInput
from training.models.loading import parameter_count
from training.settings.train import LARGE_MODEL
from training.speedups.fused_lora import FusedLora

if TYPE_CHECKING:
    from torch import nn

ADAPTER_FILE = "adapter_model.safetensors"
# Their start changes the base weights, so that "adapters off" is no longer the reference.
BASE_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class PeftAdapters:
    """Named PEFT adapters inside a model, which itself stays an ordinary ``transformers`` model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._wrapper: Any = None
        self._layers: list[tuple[str, Any]] = []
        self._fused: dict[int, FusedLora] = {}
        self._parameters: dict[str, dict[str, nn.Parameter]] = {}

    def create(self, name: str, config: Any) -> None:
        """A new adapter at its start: a step of nothing over the base."""
        start = getattr(config, "init_lora_weights", True)
        if isinstance(start, str) and start.startswith(BASE_CHANGING_STARTS):
            raise InvalidInput(
                f"An adapter that starts as {start!r} changes the base weights, and the base is the reference here; "
                "train one with the default start instead."
            )
        self._add(name, config)

    def read(self, name: str, directory: Path) -> None:
        """The adapter saved in a directory, under a name of ours; a head saved with it is left aside."""
        from peft import PeftConfig, set_peft_model_state_dict
        from safetensors.torch import load_file

        config = PeftConfig.from_pretrained(str(directory))
        config.task_type, config.modules_to_save, config.inference_mode = "CAUSAL_LM", None, False
        self.create(name, config)
        found = load_file(directory / ADAPTER_FILE)
        own = get_state(self._wrapper, name)
        state = {key: value for key, value in found.items() if key in own}
        if state.keys() != own.keys():
            missing = sorted(own.keys() - state.keys())
            raise CheckpointError(f"The adapter in {directory} does not fit its base: it lacks {missing[0]}.")
        set_peft_model_state_dict(self._wrapper, state, adapter_name=name)

    def names(self) -> list[str]:
        """Every adapter there is."""
        return list(self._wrapper.peft_config) if self._wrapper is not None else []

    def config(self, name: str) -> Any:
        """How an adapter was set up."""
        return self._wrapper.peft_config[name]

    def activate(self, name: str | None) -> None:
        """Put one adapter over the base, None for the bare base; gradient flags stay as they are."""
        for fused in self._fused.values():
            fused.invalidate()
        for _, layer in self._layers:
            # What PEFT's own calls do, but for the gradient flags, through which they walk in every layer at every step
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]

    def active(self) -> str | None:
        """The adapter over the base at present; layers that disagree are named together."""
        states = {None if layer.disable_adapters else "+".join(layer.active_adapters) for _, layer in self._layers}
        return next(iter(states), None) if len(states) < 2 else " and ".join(sorted(map(str, states)))

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The weights of one adapter, named by layer and part."""
        if name not in self._parameters:  # asked for at every step, and a walk through all layers
            self._parameters[name] = self._find_parameters(name)
        return dict(self._parameters[name])

    def _find_parameters(self, name: str) -> dict[str, nn.Parameter]:
        from torch import nn

        found: dict[str, nn.Parameter] = {}
        for place, layer in self._layers:
            for part in layer.adapter_layer_names:
                holder = getattr(layer, part, {})
                if name not in holder:
                    continue
                entry = holder[name]
                if isinstance(entry, nn.Parameter):
                    found[f"{place}.{part}"] = entry
                elif isinstance(entry, nn.Module):
                    found |= {f"{place}.{part}.{inner}": value for inner, value in entry.named_parameters()}
        return found

    def save(self, name: str, directory: Path) -> None:
        """Write one adapter as plain PEFT does, so that plain PEFT reads it."""
        from safetensors.torch import save_file

        state = {key: value.detach().cpu().contiguous() for key, value in get_state(self._wrapper, name).items()}
        save_file(state, directory / ADAPTER_FILE, metadata={"format": "pt"})
        config = self.config(name)
        was, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(directory))
        config.inference_mode = was

    def _add(self, name: str, config: Any) -> None:
        from peft import PeftModelForCausalLM
        from peft.tuners.tuners_utils import BaseTunerLayer

        # Plain PEFT finds the base by this when it loads what is saved here
        config.base_model_name_or_path = config.base_model_name_or_path or self._model.name_or_path
        if self._wrapper is None:
            self._wrapper = PeftModelForCausalLM(self._model, config, adapter_name=name)
        else:
            self._refuse_unfit_company(name, config)
            self._wrapper.add_adapter(name, config)
        self._layers = [
            (place, module) for place, module in self._model.named_modules() if isinstance(module, BaseTunerLayer)
        ]
        self._parameters = {}
        self._wrapper.eval().requires_grad_(False)  # a new adapter comes switched to training, perhaps with dropout
        self._fuse_lora_layers()
        if not self.parameters(name):
            raise InvalidInput(
                f"An adapter of the kind {config.peft_type} has no weights inside the layers of the model."
            )

    def _refuse_unfit_company(self, name: str, config: Any) -> None:
        first, *_ = self.names()
        kind, other = (getattr(one, "value", one) for one in (config.peft_type, self.config(first).peft_type))
        if kind == other == "ADALORA":
            raise InvalidInput(
                f"AdaLoRA allows one adapter over a base: {name!r} cannot lie beside {first!r}. Train the reward "
                "model, or the parent, again with adapter=lora."
            )
        if kind != other:
            raise InvalidInput(
                f"The adapter {name!r} is of the kind {kind} and {first!r} of the kind {other}: one base carries one "
                "kind. Train the reward model, or the parent, again with the same `adapter` setting."
            )

    def _fuse_lora_layers(self) -> None:
        """One product per layer instead of three; a large model's memory has no room for its weights twice."""
        if parameter_count(self._model) >= LARGE_MODEL:
            return
        for _, layer in self._layers:
            if id(layer) not in self._fused and FusedLora.fits(layer):
                self._fused[id(layer)] = FusedLora(layer)


def get_state(wrapper: Any, name: str) -> dict[str, Any]:
    """An adapter's weights under the names plain PEFT gives them."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(wrapper, adapter_name=name, save_embedding_layers=False))
