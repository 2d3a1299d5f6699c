"""The queue of runs: submission, validation, states, dependencies."""
