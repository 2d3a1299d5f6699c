"""Where the bundled starter, its prompts and its benchmark tasks lie."""

from __future__ import annotations

from pathlib import Path

_ASSETS = Path(__file__).resolve().parents[1] / "assets"

TASKS_DIR = _ASSETS / "benchmarks"
"""Where the tasks that come with the studio lie; each is a YAML file of the harness and its items."""


STARTER_DIR = _ASSETS / "starter"
"""Where the shipped policy lies: weights, tokenizer, chat template and card."""

PROMPTS_DIR = _ASSETS / "prompts"
"""Where the prompts offered to a new studio lie: ``work.jsonl`` and ``evaluation.jsonl``."""

STARTER_BASE = "starter"
"""How policies and manifests name the bundled model: by this word, so that a moved checkout breaks no home."""
