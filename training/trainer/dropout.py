"""Dropout switched off for training that compares the policy with itself.

Methods that weigh a policy against its parent, or against the replies it drew a moment ago, compare log-probabilities.
With dropout on, those of one and the same policy differ, and the difference counts as a step away from the parent.
Supervised fine-tuning compares nothing and keeps the dropout of its model.
"""

from __future__ import annotations

from typing import Any


def disable_dropout(model: Any) -> None:
    """Set every dropout probability of a model to 0: of dropout modules, and those that layers keep as numbers.

    TRL looks at the modules alone; attention in most models, and all of OPT, keeps numbers.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if _is_rate(name, value):
                setattr(module, name, 0.0)
    config = getattr(model, "config", None)  # some layers read the rate there at each call
    for part in {id(one): one for one in (config, config and config.get_text_config())}.values():
        for name, value in list(vars(part).items()) if part is not None else ():
            if _is_rate(name, value):
                setattr(part, name, 0.0)


def _is_rate(name: str, value: Any) -> bool:
    return isinstance(value, float) and value > 0 and ("drop" in name or name.endswith("_pdrop"))
