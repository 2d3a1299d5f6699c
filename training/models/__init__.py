"""Base models, tokenizers, chat templates and reward heads."""
