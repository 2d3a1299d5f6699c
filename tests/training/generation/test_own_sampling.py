"""What a model's generation configuration says of sampling, and what the settings leave to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig

from feedback.types import SamplingSettings
from training.generation.own_sampling import own_sampling
from training.settings.generate import GenerateSettings


def replier(**named: Any) -> Any:
    return SimpleNamespace(model=SimpleNamespace(generation_config=GenerationConfig(**named)))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.7}, {}),  # greedy: its temperature is never used
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"do_sample": True, "temperature": 0.2, "top_k": 20}, {"temperature": 0.5, "top_k": 20}),
        ({"max_new_tokens": 160}, {"max_new_tokens": 160}),
        ({"max_new_tokens": 100_000}, {"max_new_tokens": 8192}),
    ],
)
def test_what_the_configuration_names_is_taken(named: dict[str, Any], expected: dict[str, Any]) -> None:
    assert own_sampling(replier(**named)) == SamplingSettings(**expected)


def test_an_endpoint_gets_the_studios_own() -> None:
    assert own_sampling(SimpleNamespace()) == SamplingSettings()


def test_what_is_asked_for_is_kept_and_the_rest_is_the_models() -> None:
    own = SamplingSettings(temperature=0.7, top_p=0.9, max_new_tokens=160)
    assert GenerateSettings().resolved(own).sampling() == own
    asked = GenerateSettings(temperature=1.0, top_k=0, max_new_tokens=8).resolved(own).sampling()
    assert asked == SamplingSettings(temperature=1.0, top_p=0.9, top_k=0, max_new_tokens=8)
    assert GenerateSettings().sampling() == SamplingSettings()
