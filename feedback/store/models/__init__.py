"""Policies, checkpoints, scorecards, benchmarks and runs."""
