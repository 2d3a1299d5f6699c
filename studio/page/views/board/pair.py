"""Two policies side by side: every win rate of one over the other, and what the gate reads in them."""

from __future__ import annotations

from studio.page.html import Html, badge, element, join, notice
from studio.page.views.gate import VERDICT_TONES, reasons_list
from studio.page.views.policies import measured_table
from studio.services.evaluation import PairedPolicies


def pair_panel(found: PairedPolicies) -> Html:
    """The comparison of two policies; the first row is the figure that policy table, board and gate give."""
    name, other = found.policy.name, found.against.name
    decision = found.decision
    head = element("h4", f"{name} over {other}")
    parts: list[Html] = [head]
    if found.win_rates:
        parts.append(measured_table([(card, other) for card in found.win_rates], caption=f"{name} over {other}"))
    else:
        parts.append(
            notice(
                f"{name} was not measured over {other}",
                f"Pick {name} in the list below, compare it with {other}, and press “Measure win rate”.",
            )
        )
    if found.has_reverse:
        words = f"{other} was also measured over {name}: swap the two to see it. The gate reads each way by itself."
        parts.append(element("p", words, class_="quiet legend"))
    verdict = badge(decision.verdict.value, VERDICT_TONES[decision.verdict])
    parts += [element("h5", f"The gate, if {name} were to replace {other} ", verdict), reasons_list(decision.reasons)]
    return element("div", join(parts), class_="detail")
