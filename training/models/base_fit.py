"""Does a base fit its use? It must be a causal language model, whole, with a tokenizer inside its vocabulary.

Every check is made wherever a base is loaded, and on empty tensors when it is added
(``training.checkpoints.base_check``). Transformers fills weights that a file lacks with random numbers and drops those
it does not know, with no more than a line in a log: both give a model that is not the one that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from feedback.errors import InvalidInput
from training.models.chat_template import render

PROBE_TURNS = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"})
# Buffers that older releases of Transformers saved and that are computed today
_STALE = re.compile(
    r"(inv_freq|cos_cached|sin_cached|masked_bias|position_ids|decoder\.version|embed_positions\.weights)$"
    r"|\.(attn|attention|self_attention)\.bias$"
)
_INSTEAD = "Choose a causal language model with a chat template, for instance Qwen/Qwen2.5-0.5B-Instruct."
_OTHER_HEADS = (
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
)


def refuse_other_kind(config: Any, base: str) -> None:
    """Refuse a configuration that is not a causal language model's: encoders, encoder-decoders, other heads."""
    from transformers.models.auto import modeling_auto

    kind = str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        raise InvalidInput(f"The model {base!r} is an encoder-decoder ({kind}), which cannot be used here. {_INSTEAD}")
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if causal is None:
        raise InvalidInput(
            f"The model {base!r} is of the type {kind!r}, which is no causal language model that this version of "
            f"Transformers knows. {_INSTEAD}"
        )
    is_encoder = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if is_encoder:
        raise _reads_both_ways(kind, base)
    named = [str(name) for name in config.architectures or ()]
    other = {name for mapping in _OTHER_HEADS for name in _classes(getattr(modeling_auto, mapping).get(kind))}
    if named and causal not in named and other.intersection(named):
        raise InvalidInput(
            f"The model {base!r} was saved as {named[0]}, which has no language-model head; as {causal} it would "
            f"reply with noise. {_INSTEAD}"
        )


def refuse_without_scores(config: Any, base: str) -> None:
    """Refuse a configuration on which Transformers has no model that scores a text, as a reward model does."""
    from transformers.models.auto import modeling_auto

    if config.model_type not in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise InvalidInput(
            f"No reward model can be built on {base!r}: this version of Transformers has no scoring head for a "
            f"{config.model_type}. Train the policy by dpo or kto, or name a parent on another base."
        )


def refuse_two_way(model: Any, base: str) -> None:
    """Refuse a model whose attention looks ahead: it was made to read whole texts, not to continue them."""
    told = {module.is_causal for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)}
    if told == {False}:
        raise _reads_both_ways(str(model.config.model_type), base)


def refuse_unfit_weights(model: Any, info: Mapping[str, Any], base: str, *, fresh: Sequence[str] = ()) -> None:
    """Refuse a model whose file lacked weights, or held some inside its layers that the configuration has no place for.

    ``info`` is what ``from_pretrained(…, output_loading_info=True)`` gives; ``fresh`` are modules that are expected to
    be new. Tied weights, buffers and further heads beside the model are no fault.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(key for key in info["missing_keys"] if key in parameters and not _within(key, fresh))
    kind = model.config.model_type
    if missing:
        raise InvalidInput(
            f"The weights of {base!r} are incomplete: {_counted(missing, len(parameters))} of a {kind} of its "
            "configuration, and random numbers would stand in their place. Copy or download the model again."
        )
    surplus = [key for key in sorted(info["unexpected_keys"]) if _lies_inside(key, model) and not _STALE.search(key)]
    if surplus:
        raise InvalidInput(
            f"The weights of {base!r} are another model's than its configuration describes: a {kind} has no place for "
            f"{surplus[0]}{_and_more(surplus)}. Put the config.json that belongs to these weights beside them."
        )
    if info["error_msgs"]:
        raise InvalidInput(f"The weights of {base!r} cannot be loaded: {str(info['error_msgs'][0])[:300]}")


def fit_configuration(config: Any) -> None:
    """Let go of a pad token outside the vocabulary, at which the embedding could not even be built."""
    text = config.get_text_config()
    pad, rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
        text.pad_token_id = None


def fit_tokenizer(tokenizer: Any, rows: int, base: str) -> None:
    """See that the tokenizer names an end and gives only tokens that the embedding of so many ``rows`` has.

    A pad token that is missing or lies beyond the embedding becomes the end token: padding is masked. InvalidInput for
    any other token beyond it that can occur: named ones, plain ones, and what the chat template writes.
    """
    if tokenizer.eos_token_id is None:
        raise InvalidInput(
            f"The tokenizer of {base!r} names no end token, so no reply could end. Choose another model."
        )
    if tokenizer.eos_token_id < rows and (tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows):
        tokenizer.pad_token = tokenizer.eos_token
    for what, token, number in _tokens_that_occur(tokenizer, rows):
        raise InvalidInput(
            f"The tokenizer of {base!r} does not fit its model: {what} {token!r} has the number {number}, and the "
            f"embedding has {rows} rows (0 to {rows - 1}). Use the tokenizer that belongs to the model, or resize the "
            f"model's embedding to {number + 1} rows or more."
        )


def embedding_rows(model: Any) -> int:
    """How many tokens the model's embedding knows."""
    return int(model.get_input_embeddings().weight.shape[0])


def _tokens_that_occur(tokenizer: Any, rows: int) -> list[tuple[str, str, int]]:
    """Tokens beyond the embedding that a text, a template or a library can bring in, worst first."""
    named = (("eos", "the end token"), ("bos", "the beginning token"))
    found = []
    for short, what in named:
        number = getattr(tokenizer, f"{short}_token_id", None)
        if number is not None and number >= rows:
            found.append((what, str(getattr(tokenizer, f"{short}_token")), number))
    with suppress(Exception):  # a template that cannot render is refused elsewhere, with its own reason
        ids = tokenizer(render(tokenizer, PROBE_TURNS, generation_prompt=False))["input_ids"]
        texts = tokenizer.convert_ids_to_tokens(ids)
        found += [("the template's", text, i) for i, text in zip(ids, texts, strict=True) if i >= rows]
    # Special tokens that nothing names, as those for images, do not occur in a text
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    plain = [(i, text) for text, i in tokenizer.get_vocab().items() if i >= rows and i not in special]
    return found + [("the token", text, i) for i, text in sorted(plain)]


def _lies_inside(key: str, model: Any) -> bool:
    """Whether a weight's place is within a part that the model has, beside the model as a whole."""
    modules = {name for name, _ in model.named_modules()} - {"", model.base_model_prefix}
    parts = key.split(".")
    return any(".".join(parts[:end]) in modules for end in range(1, len(parts)))


def _within(key: str, modules: Collection[str]) -> bool:
    return any(key.startswith(f"{name}.") for name in modules)


def _counted(missing: Sequence[str], total: int) -> str:
    return f"they lack {missing[0]}{_and_more(missing)}, {len(missing)} of the {total} weights"


def _and_more(keys: Sequence[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _classes(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _reads_both_ways(kind: str, base: str) -> InvalidInput:
    return InvalidInput(
        f"The model {base!r} is an encoder ({kind}), which reads a text in both directions and cannot write replies. "
        f"{_INSTEAD}"
    )
