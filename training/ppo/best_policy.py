"""The policy that a run of reinforcement learning keeps: within the KL budget, the one with the best snapshot.

The parent has a snapshot too, but is kept only if no trained policy stayed within the budget: it exists already, and
a run that returns it under another name has achieved nothing. Where no snapshot found a policy within the budget, or
none was taken, the policy that drew the last replies within it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from training.ppo.backbone import Backbone
from training.ppo.canary import Canary, Snapshot

if TYPE_CHECKING:
    from training.settings.ppo import PpoSettings


class BestPolicy:
    """The best weights so far, and the snapshot that selected them, if one did."""

    def __init__(self, backbone: Backbone, canary: Canary, settings: PpoSettings) -> None:
        self.backbone, self.canary, self.settings = backbone, canary, settings
        # While the value trains alone, the policy equals its parent
        self.unchanged_until = settings.value_warmup if settings.baseline == "value" else 0
        self.weights: dict[str, Any] | None = None
        self.snapshot: Snapshot | None = None

    @property
    def was_chosen(self) -> bool:
        """Whether a snapshot selected a policy that has been trained."""
        return self.snapshot is not None and self.snapshot.iteration > self.unchanged_until

    def drew(self, iteration: int) -> None:
        """Record that the current policy drew an iteration's replies and is within the budget."""
        if self.weights is None or (iteration > self.unchanged_until and not self.was_chosen):
            self._keep(None)

    def seen(self, snapshot: Snapshot) -> None:
        """Keep the current policy if its snapshot is within the budget and the best so far."""
        worth_more = not self.was_chosen or self.canary.worth(snapshot) > self._worth()
        if snapshot.kl <= self.settings.kl_budget and worth_more:
            self._keep(snapshot)

    def put_back(self, log: Callable[[str], None]) -> dict[str, Any]:
        """Load the kept weights into the policy's role and return the figures; warnings go to ``log``."""
        if self.weights is not None:
            self.backbone.load_state("policy", self.weights)
        if self.snapshot is None:
            log("kept: the policy that drew the last replies within kl_budget")
            return {}
        log(f"kept: the policy after iteration {self.snapshot.iteration}")
        parent = self.canary.worth(self.canary.snapshots[0])
        if not self.was_chosen:
            log(
                "warning: the policy is its parent unchanged: nothing that was learnt stayed within kl_budget; "
                "raise beta or lower learning_rate"
            )
        elif self._worth() <= parent:
            log(
                f"warning: on the prompts kept apart the policy is worth {self._worth():.2f} and its parent "
                f"{parent:.2f}; compare them before you promote it"
            )
        return {f"best_{name}": value for name, value in self.snapshot.to_state().items() if value is not None}

    def to_state(self) -> dict[str, Any] | None:
        """Return what is kept as plain values and tensors."""
        if self.weights is None:
            return None
        return {"look": self.snapshot.to_state() if self.snapshot else None, "policy": self.weights}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Continue from the state of an earlier attempt."""
        if state is not None:
            self.weights = state["policy"]
            self.snapshot = Snapshot.from_state(state["look"]) if state["look"] else None

    def _keep(self, snapshot: Snapshot | None) -> None:
        self.weights, self.snapshot = self.backbone.state_of("policy"), snapshot

    def _worth(self) -> float:
        assert self.snapshot is not None
        return self.canary.worth(self.snapshot)
