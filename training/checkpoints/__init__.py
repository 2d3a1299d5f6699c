"""What a training run leaves: manifest, weights, resume states; how it is saved, checked and opened.

``load_policy`` and ``load_reward`` are named by the README of every checkpoint.
"""

from training.checkpoints.loading import load_policy, load_reward

__all__ = ["load_policy", "load_reward"]
