"""How a model's makers would draw from it: the sampling defaults of its generation configuration."""

from __future__ import annotations

from typing import Any

from feedback.types import SamplingSettings

LEAST_TEMPERATURE = 0.5  # below, two replies to a prompt are too much alike to compare


def own_sampling(replier: Any) -> SamplingSettings:
    """The sampling that a model's ``generation_config`` names, or this studio's own for what it leaves open.

    Its ``stop_strings`` are the stop strings. The temperature is at least 0.5. The studio's own defaults apply to a
    model whose configuration asks for greedy decoding, and to an endpoint.
    """
    config = getattr(getattr(replier, "model", None), "generation_config", None)
    usual = SamplingSettings()
    if config is None:
        return usual
    named: dict[str, Any] = config.to_diff_dict()
    own: dict[str, Any] = {}
    if named.get("do_sample"):
        own = {name: named[name] for name in ("temperature", "top_p", "top_k") if named.get(name) is not None}
    if isinstance(named.get("max_new_tokens"), int):
        own["max_new_tokens"] = min(named["max_new_tokens"], 8192)
    own["stop"] = own_stop(replier.model, None)
    if "temperature" in own:
        own["temperature"] = max(LEAST_TEMPERATURE, own["temperature"])
    return usual.model_copy(update=own)


def own_stop(model: Any, asked: list[str] | None) -> list[str]:
    """The stop strings that were asked for; where they are left out, those of the model's generation configuration."""
    if asked is not None:
        return asked
    named = getattr(getattr(model, "generation_config", None), "stop_strings", None) or []
    return [named] if isinstance(named, str) else list(filter(None, named))
