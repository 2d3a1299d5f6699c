"""The bundled starter policy: a corpus written by this project, and the build that learns from it.

The corpus is composed, not collected. A request (``families``) is answered sentence by sentence,
and every reply draws its place on each style axis (``axes``) independently, so that two replies to
one prompt differ in ways a person can prefer. ``corpus.examples`` yields the pairs, ``build`` turns
them into a tokenizer and a small Llama-architecture model, ``measure`` writes the model card.

Importing this package, ``axes`` or ``corpus`` never imports torch.
"""

from __future__ import annotations
