"""One frozen base loaded once, and the roles that live on it: policy, value, reward_0 … reward_K-1, reference.

A role is a named adapter over the base, some with a scalar head. The reference is the base with every adapter off,
or, where the policy's parent has an adapter of its own, a frozen copy of that adapter (``reference_adapter``).

Run both forward **and backward** of a role inside ``with backbone.role(name):``. When an adapter is switched between
the two, PEFT 0.21 drops the gradient without an error, so the context sets the gradient flags itself and checks them
again on leaving:

    with backbone.role("policy", training=True) as policy:
        loss = …policy.log_probs(batch, temperature)…
        loss.backward()

Sequences are padded on the right, the prompt directly followed by its reply. Then causal attention alone keeps the
padding out of every real token, positions count from 0, and no mask is ever derived from token ids: a pad token
that is also the end token does no harm.

Shapes: ids (row, position), hidden states (row, position, hidden), log-probabilities and values (row, token).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from feedback.errors import InvalidInput
from training.generation.replies import ReplyReader
from training.models.loading import HEAD_FILE, probe_tokens
from training.ppo.batch import ReplyBatch, flat_places, gather_states, scatter_tokens
from training.speedups.core_pool import CorePool
from training.speedups.frozen_layers import FrozenLayers, HiddenStateCache
from training.speedups.sparse_mlp import SparseMlp

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.models.reward_heads import Pooling
    from training.speedups.direct_forward import DirectForward

REFERENCE = "reference"
CHUNK_LOGITS = 2**22  # numbers of a chunk of logits: 16 MB in fp32


class AdapterSwitch(Protocol):
    """The operations a backbone needs from a kind of adapter. ``PeftAdapters`` implements them for PEFT."""

    def names(self) -> list[str]:
        """Return the name of every adapter."""
        ...

    def activate(self, name: str | None) -> None:
        """Activate one adapter over the base; None for the bare base."""
        ...

    def active(self) -> str | None:
        """Return the name of the active adapter."""
        ...

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Return the weights of one adapter by names that do not contain the adapter's own."""
        ...

    def save(self, name: str, directory: Path) -> None:
        """Write one adapter so that a later ``add`` can read it."""
        ...


class Backbone:
    """One base model with its adapters and heads. ``banned`` tokens are never drawn and get no probability."""

    def __init__(
        self, base: str, model: Any, tokenizer: Any, adapters: AdapterSwitch, banned: Sequence[int] = ()
    ) -> None:
        import torch

        self.base = base
        self.model = model
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.heads: dict[str, Any] = {}
        self.reference_adapter: str | None = None
        self.frozen_layers: FrozenLayers | None = None
        self.sparse_mlp: SparseMlp | None = None
        self.direct_forward: DirectForward | None = None
        self.reader = ReplyReader(tokenizer)
        self.core_pool = CorePool()
        self.device = next(model.parameters()).device
        self.banned = torch.tensor(list(banned), dtype=torch.long, device=self.device)
        model.requires_grad_(False)
        model.eval()  # no dropout anywhere: the policy that trains is the policy that drew the replies

    @property
    def decoder(self) -> Any:
        """The base model without its language-model head."""
        return self.model.base_model

    def states(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the last hidden states (row, position, hidden) of ids (row, position) under the active adapter."""
        if self.direct_forward is not None:
            return self.direct_forward(ids, positions)
        return self.decoder(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def logits(self, states: Tensor) -> Tensor:
        """Return fp32 logits (…, vocabulary) of hidden states (…, hidden)."""
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(states).float()
        for name in ("logit_scale", "lm_head_multiplier"):  # of Cohere, of Falcon-H1
            logits = logits * (getattr(config, name, None) or 1.0)
        logits = logits / (getattr(config, "logits_scaling", None) or 1.0)  # of Granite
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * (logits / cap).tanh()

    def check_head(self) -> None:
        """Raise InvalidInput for a model whose logits differ from those that ``logits`` computes."""
        import torch

        ids = probe_tokens(self.model)
        with torch.no_grad():
            own = self.logits(self.decoder(input_ids=ids, use_cache=False).last_hidden_state)
            expected = self.model(input_ids=ids, use_cache=False).logits.float()
        if not torch.allclose(own, expected, rtol=1e-2, atol=1e-2):
            raise InvalidInput(
                f"The model {self.base!r} makes its logits in a way this trainer does not know ("
                f"{type(self.model).__name__}); train it by dpo instead."
            )

    def enable_gradient_checkpointing(self) -> None:
        """Store only the input of each layer and recompute the rest in backward: less memory, a third slower.

        Transformers does this only in training mode, which would also enable dropout.
        """
        for layer in self.layers:
            layer.forward = _checkpointed(layer.forward)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        from training.forward.lower_layers import decoder_layers

        return decoder_layers(self.decoder)

    def freeze_below(self, first: int) -> None:
        """Freeze the layers below ``first`` in every role; call it after all adapters were added."""
        if first:
            self.frozen_layers = FrozenLayers(self.layers, first)

    def use_sparse_mlp(self) -> None:
        """Evaluate the last layer's MLP only where it is read, if its output depends on no other position.

        Not together with ``enable_gradient_checkpointing``: a layer that is recomputed in backward no longer knows
        which positions were read.
        """
        import torch

        sparse_mlp, ids = SparseMlp(self.layers[-1]), probe_tokens(self.model)
        with torch.no_grad():
            whole = self.decoder(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
            with sparse_mlp.read_at(torch.tensor([ids.shape[1] - 1], device=self.device)):
                alone = self.decoder(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        if sparse_mlp.fits and torch.allclose(alone, whole, rtol=1e-2, atol=1e-2):
            self.sparse_mlp = sparse_mlp

    def add_head(self, role: str, weight: Tensor | None = None, bias: float = 0.0, pooling: Pooling = "last") -> Any:
        """Add a scalar fp32 head with the given ``pooling`` to a role: ``weight`` (1, hidden), or zeros."""
        import torch

        from training.models.reward_heads import scalar_head

        width = self.model.get_output_embeddings().weight.shape[1]
        head: Any = scalar_head(pooling, width)
        head.to(self.device, torch.float32)
        with torch.no_grad():
            head.weight.copy_(weight.float()) if weight is not None else head.weight.zero_()
            head.bias.fill_(bias)
        self.heads[role] = head.requires_grad_(False)
        return head

    def parameters_of(self, role: str) -> dict[str, nn.Parameter]:
        """Return the adapter and head weights of a role by stable names."""
        own = self.adapters.parameters(role)
        if role in self.heads:
            own |= {f"head.{name}": value for name, value in self.heads[role].named_parameters()}
        return own

    def trainable_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """Return the weights of a role outside the frozen layers."""
        frozen = self.frozen_layers.frozen if self.frozen_layers is not None else set()
        return {name: value for name, value in self.parameters_of(role).items() if id(value) not in frozen}

    def frozen_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """Return the weights of a role inside the frozen layers."""
        trainable = self.trainable_parameters(role)
        return {name: value for name, value in self.parameters_of(role).items() if name not in trainable}

    def share_frozen_layers(self, one: str, other: str) -> bool:
        """Return whether the frozen layers of both roles have equal weights, and so equal hidden states."""
        import torch

        mine, yours = self.frozen_parameters(one), self.frozen_parameters(other)
        return mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)

    def state_of(self, role: str) -> dict[str, Tensor]:
        """Return copies of a role's weights, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.parameters_of(role).items()}

    def load_state(self, role: str, state: Mapping[str, Tensor]) -> None:
        """Load a role's weights; InvalidInput if the names do not match."""
        import torch

        own = self.parameters_of(role)
        if own.keys() != state.keys():
            unlike = sorted(own.keys() ^ state.keys())
            raise InvalidInput(f"The saved weights of the role {role!r} do not fit: {', '.join(unlike[:4])}.")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def save(self, role: str, directory: Path) -> None:
        """Write a role's adapter, and its head if it has one, into a directory."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        self.adapters.save(role, directory)
        if role in self.heads:
            save_file(dict(self.heads[role].state_dict()), directory / HEAD_FILE)

    @contextmanager
    def role(self, role: str, *, training: bool = False) -> Iterator[Role]:
        """Activate one role for the length of the block, with gradients if ``training``; must not be nested."""
        import torch

        adapter = self.reference_adapter if role == REFERENCE else role
        self.adapters.activate(adapter)
        trainable = {id(value) for value in self.trainable_parameters(role).values()} if training else set()
        weights = self._all_weights()
        for value in weights:
            value.requires_grad_(id(value) in trainable)
        try:
            with torch.set_grad_enabled(training):
                yield Role(self, role)
            self._check_flags(role, adapter, weights, trainable)
        finally:
            for value in weights:
                value.requires_grad_(False)

    def _all_weights(self) -> list[nn.Parameter]:
        adapters = (self.adapters.parameters(name).values() for name in self.adapters.names())
        heads = (head.parameters() for head in self.heads.values())
        return [*itertools.chain.from_iterable(adapters), *itertools.chain.from_iterable(heads)]

    def _check_flags(
        self, role: str, adapter: str | None, weights: Sequence[nn.Parameter], trainable: set[int]
    ) -> None:
        """Raise RuntimeError if adapters or flags were switched inside the block: the role lost its gradients."""
        if self.adapters.active() != adapter:
            raise RuntimeError(f"inside the role {role!r} the adapter was switched to {self.adapters.active()!r}")
        if any(value.requires_grad != (id(value) in trainable) for value in weights):
            raise RuntimeError(f"inside the role {role!r} the gradient flags were changed")


class Role:
    """The base in one role; valid only inside ``Backbone.role``."""

    def __init__(self, backbone: Backbone, name: str) -> None:
        self._backbone = backbone
        self.name = name

    def hidden(
        self, ids: Tensor, rows: Sequence[int] = (), cache: HiddenStateCache | None = None, read: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states (row, position, hidden) of right-padded ids, after the final norm.

        With ``cache``, the output of the frozen layers for ``rows`` is computed once and then taken from it.
        With ``read`` (place,), numbers of row × position, the states at other places are undefined.
        """
        import torch

        frozen_layers, sparse_mlp = self._backbone.frozen_layers, self._backbone.sparse_mlp
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        with (
            frozen_layers.cached(cache, rows, ids.shape[1]) if frozen_layers is not None else nullcontext(),
            sparse_mlp.read_at(read) if sparse_mlp is not None else nullcontext(),
        ):
            return self._backbone.states(ids, positions)

    def log_probs(
        self,
        batch: ReplyBatch,
        temperature: float = 1.0,
        rows: Sequence[int] = (),
        cache: HiddenStateCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each reply token at a temperature, and the entropy: both (row, token), fp32.

        Logits exist for one chunk of reply positions at a time; with gradients and several chunks they are recomputed
        in backward. The entropy is computed only without gradients, else it is 0. Padded places hold 0. ``rows`` and
        ``cache`` as for ``hidden``.
        """
        import torch
        from torch.utils.checkpoint import checkpoint

        real = batch.mask.bool()
        read, targets = flat_places(batch.places, batch.ids.shape[1])[real], batch.targets[real]
        states = self.hidden(batch.ids, rows, cache, read).flatten(0, 1)[read]
        size = max(1, CHUNK_LOGITS // self._backbone.model.get_output_embeddings().weight.shape[0])
        found = []
        for part, wanted in zip(states.split(size), targets.split(size), strict=True):
            if torch.is_grad_enabled() and len(states) > size:
                found.append(checkpoint(self._chunk, part, wanted, temperature, use_reentrant=False))
            else:
                found.append(self._chunk(part, wanted, temperature))
        log_probs, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scatter_tokens(log_probs, real), scatter_tokens(entropies, real)

    def values(self, batch: ReplyBatch, rows: Sequence[int] = (), cache: HiddenStateCache | None = None) -> Tensor:
        """Return the scalar head at the places from which each reply token was drawn: (row, token), fp32.

        ``rows`` and ``cache`` as for ``hidden``.
        """
        last = batch.places.gather(1, batch.mask.sum(1, keepdim=True).long() - 1)
        read = flat_places(batch.places, batch.ids.shape[1])[batch.mask.bool()]
        values = self._headed(batch.ids, last, read, rows, cache)
        return gather_states(values, batch.places).squeeze(-1) * batch.mask

    def scores(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the scalar head at the last real token of each sequence: (row,), fp32."""
        last = (lengths - 1)[:, None]
        return gather_states(self._headed(ids, last, flat_places(last, ids.shape[1]).view(-1)), last).view(-1)

    def _headed(
        self, ids: Tensor, last: Tensor, read: Tensor, rows: Sequence[int] = (), cache: HiddenStateCache | None = None
    ) -> Tensor:
        """Return the scalar head at all positions (row, position, 1); a pooling head reads all up to ``last``."""
        import torch

        from training.models.reward_heads import pooling_of

        head = self._backbone.heads[self.name]
        if pooling_of(head) != "last":
            until = torch.arange(ids.shape[1], device=ids.device) <= last
            read = until.flatten().nonzero().squeeze(1)
        return head(self.hidden(ids, rows, cache, read).float())  # type: ignore[no-any-return]

    def _chunk(self, states: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        import torch

        from training.speedups.token_log_probs import TokenLogProbs

        logits = self._backbone.logits(states)
        if temperature != 1.0:
            logits = logits / temperature
        # In place and hidden from autograd: a probability of 0 has no gradient, and the head does not need its output
        logits.detach().index_fill_(-1, self._backbone.banned, -1e9)
        if torch.is_grad_enabled():
            wanted: Tensor = TokenLogProbs.apply(logits, targets)
            return wanted, torch.zeros_like(wanted)
        log_probs = logits.log_softmax(-1)
        return log_probs.gather(-1, targets[:, None]).squeeze(-1), -(log_probs.exp() * log_probs).sum(-1)


def _checkpointed(forward: Any) -> Any:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        import torch
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return recomputed
