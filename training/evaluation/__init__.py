"""Win rates, reward accuracy, benchmarks, and the gate that decides what may serve."""
