"""Which policy a run of reinforcement keeps: of those looked at within its budget the one that is worth most.

The parent is looked at too, and is what is left only where nothing that was learnt stayed within the budget: it is
there already, and a run that gives it back under another name has made nothing. Where no look found a policy within
the budget, or there are none, the one that drew the last replies within it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from training.ppo.backbone import Backbone
from training.ppo.canary import Canary, Look

if TYPE_CHECKING:
    from training.settings.ppo import PpoSettings


class BestPolicy:
    """The weights to keep so far, and the look that chose them, if one did."""

    def __init__(self, backbone: Backbone, canary: Canary, settings: PpoSettings) -> None:
        self.backbone, self.canary, self.settings = backbone, canary, settings
        # While the value learns alone the policy is its parent as it was
        self.unchanged_until = settings.value_warmup if settings.baseline == "value" else 0
        self.weights: dict[str, Any] | None = None
        self.look: Look | None = None

    @property
    def was_chosen(self) -> bool:
        """Whether a look chose a policy that has learnt something."""
        return self.look is not None and self.look.iteration > self.unchanged_until

    def drew(self, iteration: int) -> None:
        """The policy as it is drew an iteration's replies, and is within the budget."""
        if self.weights is None or (iteration > self.unchanged_until and not self.was_chosen):
            self._keep(None)

    def seen(self, look: Look) -> None:
        """The policy as it is was looked at."""
        worth_more = not self.was_chosen or self.canary.worth(look) > self._worth()
        if look.kl <= self.settings.kl_budget and worth_more:
            self._keep(look)

    def put_back(self, log: Callable[[str], None]) -> dict[str, Any]:
        """Put what is kept into the policy's role; its figures, and in the log what there is to warn of."""
        if self.weights is not None:
            self.backbone.load_state("policy", self.weights)
        if self.look is None:
            log("kept: the policy that drew the last replies within kl_budget")
            return {}
        log(f"kept: the policy after iteration {self.look.iteration}")
        parent = self.canary.worth(self.canary.looks[0])
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
        return {f"best_{name}": value for name, value in asdict(self.look).items() if value is not None}

    def to_state(self) -> dict[str, Any] | None:
        """What is kept as plain values and tensors."""
        if self.weights is None:
            return None
        return {"look": asdict(self.look) if self.look else None, "policy": self.weights}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what was kept before."""
        if state is not None:
            self.weights = state["policy"]
            self.look = Look(**state["look"]) if state["look"] else None

    def _keep(self, look: Look | None) -> None:
        self.weights, self.look = self.backbone.state_of("policy"), look

    def _worth(self) -> float:
        assert self.look is not None
        return self.canary.worth(self.look)
