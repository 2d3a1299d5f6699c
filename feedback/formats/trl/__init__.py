"""The dataset formats of TRL."""
