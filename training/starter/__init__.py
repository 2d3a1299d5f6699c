"""The bundled starter policy: a corpus written by this project, and the build that learns from it.

The corpus is composed, not collected. A request (``families``) is answered sentence by sentence,
and every reply draws its place on each style axis (``axes``) independently, so that two replies to
one prompt differ in ways a person can prefer. ``corpus.examples`` yields the pairs, ``build`` turns
them into a tokenizer and a small Llama-architecture model, ``measure`` writes the model card.

Importing this package, ``axes`` or ``corpus`` never imports torch.
"""

from pathlib import Path

STARTER_DIR = Path(__file__).resolve().parents[2] / "assets" / "starter"
"""Where the shipped policy lies: weights, tokenizer, chat template and card."""

PROMPTS_DIR = Path(__file__).resolve().parents[2] / "assets" / "prompts"
"""Where the prompts offered to a new studio lie: ``work.jsonl`` and ``evaluation.jsonl``."""

STARTER_BASE = "starter"
"""How policies and manifests name the bundled model: by this word, so that a moved checkout breaks no home."""
