"""Settings of the method ``dpo``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from training.settings.train import Rates, SharedSettings


class DpoSettings(SharedSettings):
    """Move a policy towards the chosen replies and away from the rejected ones."""

    METHOD: ClassVar[str] = "dpo"
    SUMMARY: ClassVar[str] = "Move a policy towards the chosen replies."
    SIMPLE: ClassVar[tuple[str, ...]] = (*SharedSettings.SIMPLE, "beta")
    RATES: ClassVar[Rates] = (3e-3, 3e-4, 2e-5)
    SMALL_BASE_STEPS: ClassVar[int] = 90

    beta: float = Field(
        0.1,
        ge=0.001,
        le=10.0,
        description="How strongly the policy is held to its parent; higher moves it less.",
    )
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "simpo"] = Field(
        "sigmoid",
        description="The form of the loss: robust expects wrong labels, ipo resists overfitting few pairs, simpo needs "
        "no reference and counts per token.",
    )
    noise: float = Field(0.1, ge=0.0, le=0.45, description="For the robust loss: share of the labels that are wrong.")
    length_weight: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="What the part of a reply beyond the length of the shorter one counts; below 1 it keeps replies "
        "from growing.",
    )
    anchor: float = Field(
        0.1,
        ge=0.0,
        le=10.0,
        description="How much the chosen replies' own likelihood counts beside the comparison (RPO's alpha): it keeps "
        "a policy from forgetting how to speak; 0 is plain DPO.",
    )
    simpo_beta: float = Field(2.0, ge=0.01, le=20.0, description="For the simpo loss: in the place of beta.")
    simpo_margin: float = Field(
        1.0, ge=0.0, le=20.0, description="For the simpo loss: by how much the chosen reply should lead."
    )
