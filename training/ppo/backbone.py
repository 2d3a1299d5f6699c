"""One frozen base loaded once, and the roles that live on it: policy, value, reward_0 … reward_K-1, reference.

A role is a named adapter over the base, some with a scalar head. The reference is the base with every adapter off,
or, where the policy's parent has an adapter of its own, that adapter frozen: it is what the caller says it is.

Forward **and backward** of a role belong inside its context. An adapter that is switched between the two gets no
gradient and no error (PEFT 0.21), so the context sets the gradient flags itself and looks at them again on leaving:

    with roles.acting("policy", training=True) as policy:
        loss = …policy.log_probs(batch, temperature)…
        loss.backward()

Sequences are padded on the right, prompt and reply next to each other. Then causal attention alone keeps the
padding out of every real token, positions count from 0, and no mask is ever derived from token ids: a pad token
that is also the end token does no harm.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from feedback.errors import InvalidInput
from training.models.loading import HEAD_FILE, probe_tokens
from training.speedups.core_pool import Crew
from training.speedups.frozen_layers import Kept, Trunk
from training.speedups.sparse_mlp import TopLayer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.models.reward_heads import Pooling
    from training.speedups.direct_forward import LeanForward
from training.ppo.batch import Batch, _numbered, _picked, _spread

REFERENCE = "reference"
CHUNK_LOGITS = 2**22  # numbers of a chunk of logits: 16 MB in fp32


class Adapters(Protocol):
    """What the roles need of a kind of adapter. ``PeftAdapters`` is one; a home-made kind offers the same."""

    def names(self) -> list[str]:
        """Every adapter there is."""
        ...

    def activate(self, name: str | None) -> None:
        """Put one adapter over the base; None for the bare base."""
        ...

    def active(self) -> str | None:
        """The adapter over the base at present."""
        ...

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The weights of one adapter, by names that do not hold the adapter's own."""
        ...

    def save(self, name: str, directory: Path) -> None:
        """Write one adapter so that a later ``add`` can read it."""
        ...


class Roles:
    """The base, its adapters and heads. ``banned`` tokens are never drawn, so no probability is given to them."""

    def __init__(self, base: str, model: Any, tokenizer: Any, adapters: Adapters, banned: Sequence[int] = ()) -> None:
        import torch

        self.base = base
        self.model = model
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.heads: dict[str, Any] = {}
        self.reference_is: str | None = None
        self.trunk: Trunk | None = None
        self.top: TopLayer | None = None
        self.lean: LeanForward | None = None
        self.crew = Crew()
        self.device = next(model.parameters()).device
        self.banned = torch.tensor(list(banned), dtype=torch.long, device=self.device)
        model.requires_grad_(False)
        model.eval()  # no dropout anywhere: the policy that learns is the policy that drew

    @property
    def backbone(self) -> Any:
        """The model without its language-model head."""
        return self.model.base_model

    def states(self, ids: Tensor, positions: Tensor) -> Tensor:
        """The last hidden states (row, position, width) as the adapter over the base makes them now."""
        if self.lean is not None:
            return self.lean(ids, positions)
        return self.backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def logits(self, states: Tensor) -> Tensor:
        """The language-model head on hidden states (…, width), in fp32."""
        logits = self.model.get_output_embeddings()(states).float()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * (logits / cap).tanh()

    def check_head(self) -> None:
        """Refuse a model whose logits are made in a way that ``logits`` does not know: training it would go astray."""
        import torch

        ids = probe_tokens(self.model)
        with torch.no_grad():
            own = self.logits(self.backbone(input_ids=ids, use_cache=False).last_hidden_state)
            expected = self.model(input_ids=ids, use_cache=False).logits.float()
        if not torch.allclose(own, expected, rtol=1e-2, atol=1e-2):
            raise InvalidInput(
                f"The model {self.base!r} makes its logits in a way this trainer does not know ("
                f"{type(self.model).__name__}); train it by dpo instead."
            )

    def checkpoint_layers(self) -> None:
        """Keep only what enters each layer and compute the rest again on the way back: less memory, a third slower.

        Transformers does this only in training mode, which would also switch dropout on.
        """
        for layer in self.layers:
            layer.forward = _recomputed(layer.forward)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the backbone, from below."""
        from torch import nn

        stacks = [part for part in self.backbone.children() if isinstance(part, nn.ModuleList)]
        return max(stacks, key=len)

    def hold_still(self, first: int) -> None:
        """Let the layers below ``first`` keep still in every role; call it once all adapters are there."""
        if first:
            self.trunk = Trunk(self.layers, first)

    def read_sparingly(self) -> None:
        """Let the top layer's MLP work only where it is read, if it is one that looks at no other position.

        Not together with ``checkpoint_layers``: a layer run again on the way back no longer knows what was read.
        """
        import torch

        top, ids = TopLayer(self.layers[-1]), probe_tokens(self.model)
        with torch.no_grad():
            whole = self.backbone(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
            with top.read_at(torch.tensor([ids.shape[1] - 1], device=self.device)):
                alone = self.backbone(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        if top.fits and torch.allclose(alone, whole, rtol=1e-2, atol=1e-2):
            self.top = top

    def add_head(self, role: str, weight: Tensor | None = None, bias: float = 0.0, pooling: Pooling = "last") -> Any:
        """Give a role a scalar head in fp32 that reads as ``pooling`` says: the weights given (1, width), or zeros."""
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
        """Adapter and head of a role by stable names."""
        own = self.adapters.parameters(role)
        if role in self.heads:
            own |= {f"head.{name}": value for name, value in self.heads[role].named_parameters()}
        return own

    def learning_of(self, role: str) -> dict[str, nn.Parameter]:
        """What of a role's weights learns: all but those in layers that keep still."""
        still = self.trunk.still if self.trunk is not None else set()
        return {name: value for name, value in self.parameters_of(role).items() if id(value) not in still}

    def still_of(self, role: str) -> dict[str, nn.Parameter]:
        """What of a role's weights lies in layers that keep still."""
        learning = self.learning_of(role)
        return {name: value for name, value in self.parameters_of(role).items() if name not in learning}

    def are_still_alike(self, one: str, other: str) -> bool:
        """Whether the layers that keep still make the same of a reply in both roles."""
        import torch

        mine, yours = self.still_of(one), self.still_of(other)
        return mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)

    def state_of(self, role: str) -> dict[str, Tensor]:
        """Copies of a role's weights, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.parameters_of(role).items()}

    def load_state(self, role: str, state: Mapping[str, Tensor]) -> None:
        """Put a role's weights back; names that do not fit are refused."""
        import torch

        own = self.parameters_of(role)
        if own.keys() != state.keys():
            unlike = sorted(own.keys() ^ state.keys())
            raise InvalidInput(f"The saved weights of the role {role!r} do not fit: {', '.join(unlike[:4])}.")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def save(self, role: str, directory: Path) -> None:
        """Write a role's adapter, and its head beside it, into a directory."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        self.adapters.save(role, directory)
        if role in self.heads:
            save_file(dict(self.heads[role].state_dict()), directory / HEAD_FILE)

    @contextmanager
    def acting(self, role: str, *, training: bool = False) -> Iterator[Role]:
        """The base in one role for the time of the block, learning only if ``training``; not to be nested."""
        import torch

        adapter = self.reference_is if role == REFERENCE else role
        self.adapters.activate(adapter)
        learning = {id(value) for value in self.learning_of(role).values()} if training else set()
        everything = self._everything()
        for value in everything:
            value.requires_grad_(id(value) in learning)
        try:
            with torch.set_grad_enabled(training):
                yield Role(self, role)
            self._check_untouched(role, adapter, everything, learning)
        finally:
            for value in everything:
                value.requires_grad_(False)

    def _everything(self) -> list[nn.Parameter]:
        adapters = (self.adapters.parameters(name).values() for name in self.adapters.names())
        heads = (head.parameters() for head in self.heads.values())
        return [*itertools.chain.from_iterable(adapters), *itertools.chain.from_iterable(heads)]

    def _check_untouched(
        self, role: str, adapter: str | None, everything: Sequence[nn.Parameter], learning: set[int]
    ) -> None:
        """Whatever switched adapters or flags inside the block has cost the role its gradients: say so, loudly."""
        if self.adapters.active() != adapter:
            raise RuntimeError(f"inside the role {role!r} the adapter was switched to {self.adapters.active()!r}")
        if any(value.requires_grad != (id(value) in learning) for value in everything):
            raise RuntimeError(f"inside the role {role!r} the gradient flags were changed")


class Role:
    """The base as it acts in one role; valid inside ``Roles.acting`` only."""

    def __init__(self, roles: Roles, name: str) -> None:
        self._roles = roles
        self.name = name

    def hidden(
        self, ids: Tensor, rows: Sequence[int] = (), kept: Kept | None = None, read: Tensor | None = None
    ) -> Tensor:
        """The last hidden states (row, position, width) of right-padded sequences, after the final norm.

        With ``kept``, what layers that keep still make of the ``rows`` is worked out once and then remembered there.
        With ``read`` (place,), numbers of row × position, the states elsewhere are not to be read.
        """
        import torch

        trunk, top, positions = self._roles.trunk, self._roles.top, torch.arange(ids.shape[1], device=ids.device)[None]
        with (
            trunk.known(kept, rows, ids.shape[1]) if trunk is not None else nullcontext(),
            top.read_at(read) if top is not None else nullcontext(),
        ):
            return self._roles.states(ids, positions)

    def log_probs(
        self, batch: Batch, temperature: float = 1.0, rows: Sequence[int] = (), kept: Kept | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each token of the replies at a temperature, and the entropy there: (row, token), fp32.

        Logits exist for a chunk of reply positions at a time; where gradients are wanted of several chunks they are
        made again on the way back. The entropy is worked out only where no gradient is wanted, else it is 0. Places
        without a token hold 0. ``rows`` and ``kept`` as for ``hidden``.
        """
        import torch
        from torch.utils.checkpoint import checkpoint

        real = batch.mask.bool()
        read, targets = _numbered(batch.places, batch.ids.shape[1])[real], batch.targets[real]
        states = self.hidden(batch.ids, rows, kept, read).flatten(0, 1)[read]
        size = max(1, CHUNK_LOGITS // self._roles.model.get_output_embeddings().weight.shape[0])
        found = []
        for part, wanted in zip(states.split(size), targets.split(size), strict=True):
            if torch.is_grad_enabled() and len(states) > size:
                found.append(checkpoint(self._chunk, part, wanted, temperature, use_reentrant=False))
            else:
                found.append(self._chunk(part, wanted, temperature))
        log_probs, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
        return _spread(log_probs, real), _spread(entropies, real)

    def values(self, batch: Batch, rows: Sequence[int] = (), kept: Kept | None = None) -> Tensor:
        """The scalar head at the places from which each token of the replies was drawn: (row, token), fp32.

        ``rows`` and ``kept`` as for ``hidden``.
        """
        last = batch.places.gather(1, batch.mask.sum(1, keepdim=True).long() - 1)
        read = _numbered(batch.places, batch.ids.shape[1])[batch.mask.bool()]
        values = self._headed(batch.ids, last, read, rows, kept)
        return _picked(values, batch.places).squeeze(-1) * batch.mask

    def scores(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The scalar head at the last real token of each sequence: (row,), fp32."""
        last = (lengths - 1)[:, None]
        return _picked(self._headed(ids, last, _numbered(last, ids.shape[1]).view(-1)), last).view(-1)

    def _headed(
        self, ids: Tensor, last: Tensor, read: Tensor, rows: Sequence[int] = (), kept: Kept | None = None
    ) -> Tensor:
        """The scalar head over all positions (row, position, 1); a head that adds up reads all until the ``last``."""
        import torch

        from training.models.reward_heads import pooling_of

        head = self._roles.heads[self.name]
        if pooling_of(head) != "last":
            until = torch.arange(ids.shape[1], device=ids.device) <= last
            read = until.flatten().nonzero().squeeze(1)
        return head(self.hidden(ids, rows, kept, read).float())  # type: ignore[no-any-return]

    def _chunk(self, states: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        import torch

        from training.speedups.token_log_probs import TokenLogProbs

        logits = self._roles.logits(states)
        if temperature != 1.0:
            logits = logits / temperature
        # In place and unseen by autograd: a probability of 0 has no gradient, and the head needs not what it gave
        logits.detach().index_fill_(-1, self._roles.banned, -1e9)
        if torch.is_grad_enabled():
            wanted: Tensor = TokenLogProbs.apply(logits, targets)
            return wanted, torch.zeros_like(wanted)
        log_probs = logits.log_softmax(-1)
        return log_probs.gather(-1, targets[:, None]).squeeze(-1), -(log_probs.exp() * log_probs).sum(-1)


def _recomputed(forward: Any) -> Any:
    def again(*args: Any, **kwargs: Any) -> Any:
        import torch
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again
