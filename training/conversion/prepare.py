"""Prepare the base of a policy: convert a GGUF file, set a chosen chat template."""

from __future__ import annotations

from pathlib import Path

from feedback.errors import InvalidInput
from feedback.types import ENDPOINT_SCHEMES
from training.conversion.cache import Report
from training.conversion.gguf_header import is_gguf


def prepare_base(model: str, chat_template: str | None = None, report: Report = lambda share, text: None) -> str:
    """What ``registration.add_examined`` takes for a model: the directory made of it, else the model as it was named.

    Raises InvalidInput or NotFound with the reason where a file cannot be converted, or a template does not suit.
    """
    if model.startswith(ENDPOINT_SCHEMES):
        if chat_template is not None:
            raise InvalidInput(f"{model} is a server, which applies its model's chat template itself. Name none here.")
        return model
    path = Path(model).expanduser()
    if is_gguf(path):
        from training.conversion.gguf_model import ensure_converted

        model = str(ensure_converted(path.resolve(), report))
    if chat_template is None:
        return model
    from training.checkpoints.registration import check_base
    from training.conversion.own_template import with_template

    return str(with_template(check_base(model), chat_template, report))
