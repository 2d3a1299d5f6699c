"""A model whose decoder computes packed rows: no padding, and prefixes that rows share once.

Whoever calls the model gives it a padded batch and gets padded states, as before. A model whose layers do more with a
row than attention, such as a recurrent one, computes its batches as they are: a probe finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutputWithPast

from training.forward.attention import PACKED, register
from training.forward.layout import Layout, lay_out
from training.forward.lower_layers import AGREES as LOWER_AGREES
from training.forward.lower_layers import LowerLayers, packed_forward

# Arguments that say what the packed forward does anyhow; with any other the batch is computed as it is
UNDERSTOOD = {"use_cache": (False, None), "return_dict": (True, None), "output_attentions": (False, None)}
LIMITS = ("attention_chunk_size", "index_topk")  # settings of attention that sees less than all, or than a window
PROBE_ROWS = ((1, 24), (1, 17), (40, 12), (90, 5))  # first token and length: two begin alike, two do not
AGREES = {torch.float32: 2e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}  # times the largest hidden state


class PackedDecoder:
    """The forward of a decoder that computes only what differs among the rows of a batch."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._usual = decoder.forward
        self.__signature__ = signature(decoder.forward)  # read by those who call the decoder with what it takes
        self.computed = self.padded = 0  # tokens so far: those that were computed, and those of the batches
        self.windows: set[int | None] = set()  # how far the layers of the last forward let a token see
        self.lower: LowerLayers | None = None  # where only upper layers are trained

    def __call__(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """The last hidden states (B, T, hidden) of a batch; zeros where it is padded."""
        if not self._packs(input_ids, attention_mask, kwargs):
            return self._usual(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        assert input_ids is not None and attention_mask is not None
        embedding = self._decoder.get_input_embeddings()
        noisy = embedding.training and hasattr(embedding, "neftune_noise_alpha")  # then no two rows are alike
        layout = lay_out(input_ids, attention_mask, share=not noisy)
        self.computed += len(layout.source)
        self.padded += input_ids.numel()
        given = self._noisy_states(input_ids, layout) if noisy else {"input_ids": _packed(input_ids, layout)}
        lower: AbstractContextManager[None] = nullcontext()
        if self.lower is not None and not noisy:
            lower = self.lower.replaced_by(self.lower.entering(input_ids, layout))
        with lower:
            out = packed_forward(self._usual, layout, **given)
        self.windows = layout.windows
        states = pad(out.last_hidden_state[0], (0, 0, 0, 1))
        padded = states.index_select(0, layout.places.flatten()).view(*layout.places.shape, -1)
        return BaseModelOutputWithPast(last_hidden_state=padded)

    def cache_below(self, model: Any, first: int, limit: int) -> bool:
        """Read the states that enter layer ``first`` from a cache of ``limit`` bytes; False where that changes them."""
        ids, mask = _probe_batch(model)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        was_training = model.training
        self.lower = None
        model.eval()
        try:
            with torch.no_grad():
                expected = self(**given).last_hidden_state
                self.lower = LowerLayers(self._decoder, self._usual, first, limit)
                found = self(**given).last_hidden_state
            agrees = bool(torch.allclose(found, expected, rtol=0.0, atol=LOWER_AGREES * float(expected.abs().max())))
        except Exception:  # whatever another kind of model stumbles over, its lower layers are computed each time
            agrees = False
        finally:
            model.train(was_training)
            self.computed = self.padded = 0
        self.lower = LowerLayers(self._decoder, self._usual, first, limit) if agrees else None
        return agrees

    def _packs(self, input_ids: Tensor | None, attention_mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
        asked = {name: value for name, value in kwargs.items() if value is not None}
        if input_ids is None or attention_mask is None or attention_mask.shape != input_ids.shape:
            return False
        if any(name not in UNDERSTOOD or value not in UNDERSTOOD[name] for name, value in asked.items()):
            return False
        return "use_cache" in kwargs and bool(attention_mask.any(1).all())

    def _noisy_states(self, input_ids: Tensor, layout: Layout) -> dict[str, Tensor]:
        """Embedded as a batch, so that the noise is what it would be without packing."""
        states = self._decoder.get_input_embeddings()(input_ids)
        return {"inputs_embeds": states.flatten(0, 1).index_select(0, layout.source)[None]}


def _packed(values: Tensor, layout: Layout) -> Tensor:
    return values.flatten().index_select(0, layout.source)[None]


def asks_for_router(model: Any) -> bool:
    """Whether TRL asks this model's experts for router logits, whose loss counts the tokens of padded batches."""
    return bool(getattr(model.config.get_text_config(), "router_aux_loss_coef", None))


@contextmanager
def packed_rows(model: Any) -> Iterator[PackedDecoder | None]:
    """The decoder of a causal model or a sequence classifier computes packed rows for the time of the block.

    The block is given what computes them, or None where the model cannot and computes its batches as they are.
    """
    decoder = model.base_model
    if decoder is model or model.config._attn_implementation != "sdpa":
        yield None
        return
    register()
    own = vars(decoder).get("forward")  # set by whoever replaced it before
    packed = PackedDecoder(decoder)
    try:
        usable = _reads_packed_rows(model, packed)
        if usable:
            decoder.forward = packed
        yield packed if usable else None
    finally:
        model.set_attn_implementation("sdpa")
        vars(decoder).pop("forward", None)
        if own is not None:
            decoder.forward = own


def _reads_packed_rows(model: Any, packed: PackedDecoder) -> bool:
    """Whether packed and padded rows give the same states; the model is left with attention for packed rows."""
    ids, mask = _probe_batch(model)
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model.base_model(**given).last_hidden_state
            model.set_attn_implementation(PACKED)
            found = packed(**given).last_hidden_state
            return _agree(found, expected, mask) and _windows_reach_attention(
                model.config.get_text_config(), packed.windows
            )
    except Exception:  # whatever another kind of layer stumbles over, it reads padded rows
        return False
    finally:
        model.train(was_training)
        packed.computed = packed.padded = 0


def _windows_reach_attention(config: Any, windows: set[int | None]) -> bool:
    """Whether the layers passed their window to the attention function; some apply it in the mask alone.

    The rows of a probe are shorter than such a limit, so that their states would not show it.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        return False
    if any(getattr(config, name, None) for name in LIMITS):
        return False
    window = getattr(config, "sliding_window", None)
    return not isinstance(window, int) or kinds == {"full_attention"} or window in windows


def _probe_batch(model: Any) -> tuple[Tensor, Tensor]:
    """A batch padded on the right, two of whose rows begin alike, and its mask."""
    rows = [torch.arange(begin, begin + length) for begin, length in PROBE_ROWS]
    rows[1][12:] += 7
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return (ids % vocabulary).to(model.device), mask.to(model.device)


def _agree(found: Tensor, expected: Tensor, mask: Tensor) -> bool:
    real = mask.bool()
    tolerance = AGREES.get(expected.dtype, 0.0) * float(expected[real].abs().max())
    return bool(torch.allclose(found[real], expected[real], rtol=0.0, atol=tolerance))
