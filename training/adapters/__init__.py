"""Adapters on a frozen base: LoRA by PEFT and the bottleneck adapter of this studio.

Importing this package makes the bottleneck adapter known to PEFT, which can then load a checkpoint that has one.
"""

from training.adapters.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel"]
