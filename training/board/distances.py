"""How far policies moved from the reference and what they gained by it: KL against win rate, best-of-n beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from feedback.tables import ScorecardRow


@dataclass(frozen=True)
class DistancePoint:
    """A policy by its KL from the reference, in nats per reply, and its win rate over it with a 95 % interval.

    ``kl`` is None where no evaluation measured it. With ``best_of`` above 1 the replies are the best of so many, chosen
    by ``picker``, and ``kl`` is at most ``ln n - (n-1)/n`` nats on top of the policy's own: an upper bound.
    """

    policy: str
    kl: float | None
    kl_error: float | None
    win_rate: float
    low: float
    high: float
    prompts: int
    best_of: int = 1
    picker: str = ""


def first_reply_points(
    cards: Iterable[ScorecardRow], reference_id: str, wins: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> list[DistancePoint]:
    """The policies by their own replies; ``wins`` are their figures over the reference, by id.

    KL says nothing of the judge: where the figures hold none, it is that of the newest scorecard of the two.
    """
    kept = [card for card in cards if card.against_id == reference_id and card.figures.get("kl") is not None]
    points = []
    for policy_id, figures in wins.items():
        own = (card.figures for card in kept if card.subject_id == policy_id and "best_of" not in card.figures)
        moved = figures if figures.get("kl") is not None else next(own, {})
        points.append(_point(names[policy_id], figures, moved.get("kl"), moved.get("kl_error")))
    return points


def best_of_points(cards: Iterable[ScorecardRow], reference_id: str, names: Mapping[str, str]) -> list[DistancePoint]:
    """The newest best-of-n evaluation over the reference of each policy, number of replies and picker.

    The reference may be compared with its own first replies.
    """
    points: dict[tuple[str, int, str], DistancePoint] = {}
    for card in cards:
        figures, name = card.figures, names.get(card.subject_id)
        if card.against_id != reference_id or "best_of" not in figures or name is None:
            continue
        own = 0.0 if card.subject_id == reference_id else figures.get("kl")
        kl = None if own is None else own + figures["best_of_kl"]
        picker, n = str(card.settings.get("picker") or ""), int(figures["best_of"])
        points.setdefault((name, n, picker), _point(name, figures, kl, figures.get("kl_error"), n, picker))
    return sorted(points.values(), key=lambda point: (point.policy, point.picker, point.best_of))


def _point(
    name: str,
    figures: Mapping[str, Any],
    kl: float | None,
    error: float | None,
    best_of: int = 1,
    picker: str = "",
) -> DistancePoint:
    win_rate, low, high = (float(figures[key]) for key in ("win_rate", "low", "high"))
    return DistancePoint(name, kl, error, win_rate, low, high, figures["n_prompts"], best_of, picker)
