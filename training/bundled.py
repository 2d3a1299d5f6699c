"""Where the models, prompts and benchmark tasks lie that come with the studio."""

from __future__ import annotations

import os
from pathlib import Path

_ASSETS = Path(__file__).resolve().parents[1] / "assets"

TASKS_DIR = _ASSETS / "benchmarks"
"""Where the tasks that come with the studio lie; each is a YAML file of the harness and its items."""


STARTER_DIR = _ASSETS / "starter"
"""Where the shipped policy lies: weights, tokenizer, chat template and card."""

PROMPTS_DIR = _ASSETS / "prompts"
"""Where the prompts offered to a new studio lie: ``work.jsonl`` and ``evaluation.jsonl``."""

STARTER_BASE = "starter"
"""How policies and manifests name the starter: by this word, so that a moved checkout breaks no home."""

SMOLLM2_BASE = "smollm2"
"""How policies and manifests name SmolLM2-135M-Instruct: by this word, so that a home can move to another machine."""

SMOLLM2_DIR_NAME = "smollm2-135m-instruct"
"""The directory of the converted model in ``models_directory``."""

POLICY_IDS = {STARTER_BASE: "pol-starter", SMOLLM2_BASE: "pol-smollm2"}
"""The id of the policy over each of these bases: the same in every home, so that judgments can move between homes."""

ASSISTANT_PROMPTS_DIR = PROMPTS_DIR / "assistant"
"""Where the prompts of a home lie whose policy is a general assistant: ``work.jsonl`` and ``evaluation.jsonl``."""


def models_directory() -> Path:
    """The directory of downloaded models, shared by all homes of a user: $STUDIO_MODELS, else in the user's cache."""
    named = os.environ.get("STUDIO_MODELS")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "rlhf-studio" / "models"
