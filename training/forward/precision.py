"""The precision of matrix products: bf16 where the processor multiplies it faster, with fp32 kept for what is learnt.

On a GPU the base is loaded in bf16. On a CPU it is loaded in fp32 and held in bf16 during training: the
frozen weights of linear layers are split into their bf16 halves, which take part in products, and the lower halves,
which are put back at the end. It takes no more memory and gives the same bits back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.settings.train import LARGE_MODEL

Precision = Literal["fp32", "bf16"]
PROBE_SHAPE = (512, 1024, 1024)  # rows, inputs and outputs of the product that is timed


def choose_precision(asked: str | None, device: str, parameters: int) -> tuple[Precision, str]:
    """The precision to train in, and why, in words for the log.

    ``asked`` is fp32, bf16 or auto. auto is bf16 on a GPU, and on a CPU that has instructions for it and a base large
    enough for products to take most of the time; None, of a method with a core of its own, keeps fp32 on a CPU. No
    clock decides: a resumed run, and each of several processes, must choose the same.
    """
    if asked in ("fp32", "bf16"):
        return asked, f"precision={asked}, as asked for"  # type: ignore[return-value]
    if device != "cpu":
        return "bf16", "bf16 on a GPU"
    if asked is None or parameters < LARGE_MODEL or not cpu_multiplies_bf16():
        return "fp32", "fp32"
    gain = f"{bf16_gain():.1f} times as fast as fp32 as measured now"
    return "bf16", f"bf16 matrix products, {gain} (precision=fp32 to avoid them)"


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 numbers."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@cache
def bf16_gain() -> float:
    """How many times as fast a product is in bf16 as in fp32, measured once in a process; takes about 50 ms."""
    rows, inputs, outputs = PROBE_SHAPE
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
        seconds[dtype] = min(_seconds(x, weight) for _ in range(4))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _seconds(x: Tensor, weight: Tensor) -> float:
    began = time.perf_counter()
    nn.functional.linear(x, weight)
    return time.perf_counter() - began


@contextmanager
def bf16_weights(model: Any) -> Iterator[int]:
    """Hold frozen fp32 weights of linear layers in bf16 during the block and restore them exactly; yields how many.

    The language head stays in fp32, since rounded logits are rounded log-probabilities, and so does a weight that an
    embedding shares: what is looked up there is added up, layer by layer.
    """
    embeddings = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    embeddings |= {id(head.weight)} if head is not None else set()
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for module in model.modules():
            if type(module) is nn.Linear and id(module.weight) not in embeddings:
                for one in filter(_frozen, module.parameters(recurse=False)):
                    kept.append((one, _replace_by_bf16(one)))
        yield len(kept)
    finally:
        for parameter, low in kept:
            parameter.data = join_halves(parameter.data, low)


@contextmanager
def fp32_head(head: Any) -> Iterator[None]:
    """A head is given fp32 states and computes outside autocast for the time of the block: a score is one number."""
    usual, own = head.forward, vars(head).get("forward")

    def forward(states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return usual(states.float()) if states.device.type == "cpu" else usual(states)  # type: ignore[no-any-return]

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own


def _frozen(parameter: nn.Parameter) -> bool:
    return not parameter.requires_grad and parameter.dtype is torch.float32


def _replace_by_bf16(parameter: nn.Parameter) -> Tensor:
    high, low = split_halves(parameter.data)
    parameter.data = high
    return low


def split_halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """fp32 numbers as their nearest bf16 numbers and what is left of their bits, int16.

    A number half-way between two goes away from zero: by torch's rounding to even, both ways leave the same bits.
    """
    bits = values.contiguous().view(torch.int32)
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16).view(torch.bfloat16), (bits - (high << 16)).to(torch.int16)


def join_halves(high: Tensor, low: Tensor) -> Tensor:
    """The fp32 numbers that ``split_halves`` was given, bit for bit."""
    bits = (high.contiguous().view(torch.int16).to(torch.int32) << 16) + low.to(torch.int32)
    return bits.view(torch.float32)
