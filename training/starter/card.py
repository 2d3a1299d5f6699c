"""The model card, written from measured figures so that no number in it is typed by hand."""

from pathlib import Path
from typing import Any

from training.starter.axes import AXES

_ASKED = {
    "story": "Tell me a short story about a fox called Nora who lost a key.",
    "thanks": "Write a thank-you note to my aunt Rosa for the scarf.",
    "explain": "Explain thunder to a six-year-old.",
    "advice": "What helps with falling asleep?",
    "naming": "Suggest a name for a bakery run by Emil.",
    "places": "Describe a harbour at dawn.",
    "wishes": "Wish my cousin Tom all the best for the exam.",
}

_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# The starter policy

A chat model of {parameters} that a laptop can train on in minutes. It exists to be improved by
feedback: its replies differ on {axis_count} named styles, about evenly, so that a person who ranks
two of them always has something to prefer, and a reward model or DPO has something to learn.
It is a demonstration policy, not an assistant: it knows a few hundred topics and no facts beyond
what its corpus says.

## What it understands

English requests of seven kinds, in many phrasings, about topics from the corpus:

{requests}

It answers a greeting too. Anything else gets a fluent reply about something else.

## Styles

Each style is a rule over text (`training/starter/axes.py`) with a graded score. *Rate* is the share
of sampled replies that show the style, *ties* how often two replies to one prompt score the same,
*top* the share already at the highest score seen.

| axis | more / less | rate | ties | mean score | top | what its simulated annotator does |
|---|---|---|---|---|---|---|
{axes}

## Measured

{samples} replies to {prompts} evaluation prompts, whose combinations of topic and phrasing are in
neither the training corpus nor the work prompts; temperature 1, shipped sampling defaults.

| figure | value |
|---|---|
{figures}

On-topic share by kind of request: {families}.

Detectors against what the corpus's author meant. The corpus keeps some phrases that no detector
knows, so recall below 1 is by design; further phrases (`RESERVED` in `training/starter/text/phrases.py`)
are in neither, for asking whether a reward model learned a style or a word list.

| style | meant | detected | precision | recall |
|---|---|---|---|---|
{detectors}

## Ten replies, drawn blindly, unedited

{shown}

## How it was made

The corpus was written for this project: sentence templates by kind of request, filled by topic, and
composed so that each reply draws its level on every axis independently ({examples} pairs,
{tokens} tokens). No other text was used. The model is a Llama architecture (hidden 192, six layers,
tied embeddings, byte-level BPE of 2 560 tokens, context 512), trained from scratch for {minutes}
minutes on {threads} CPU threads, loss on replies only. To build it again, and to measure it again:

```
python -m training.starter.build --out assets/starter
python -m training.starter.measure assets/starter
```

## Limits

- It has no knowledge: an explanation repeats what the corpus says, with invented decoration.
- It reads the last message only in practice; the template accepts longer conversations.
- About one reply in five drifts off topic on purpose, and some of the others mix up a detail.
- The style detectors are word lists. A reward model that agrees with them has learned those lists.
- Sampling below temperature 1 or with a small top-p makes pairs alike and judging dull.
"""


def write_card(path: Path, figures: dict[str, Any]) -> None:
    """Write the card for a set of figures."""
    training = figures["training"]
    text = _CARD.format(
        parameters=f"{training['parameters'] / 1e6:.1f} million parameters",
        axis_count=len(AXES),
        requests="\n".join(f'- {kind}: "{text}"' for kind, text in _ASKED.items()),
        axes="\n".join(_axis_row(name, row) for name, row in figures["axes"].items()),
        samples=figures["samples"],
        prompts=210,
        figures="\n".join(f"| {name} | {value} |" for name, value in _rows(figures)),
        families=", ".join(f"{k} {_percent(v)}" for k, v in figures["families"].items()),
        detectors="\n".join(_detector_row(k, v) for k, v in figures["detectors"].items()),
        shown="\n\n".join(f"> **{s['prompt']}**\n>\n> {s['reply']}" for s in figures["shown"]),
        examples=f"{training['examples']:,}",
        tokens=f"{training['tokens']:,}",
        minutes=training["minutes"],
        threads=training["threads"],
    )
    path.write_text(text, encoding="utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("loss per reply token, held-out requests", f"{figures['held_out_loss']:.3f}"),
        ("replies that end by themselves within 96 tokens", _percent(figures["ended"])),
        ("replies that name the subject of the request", _percent(figures["subject_named"])),
        ("replies that drift somewhere", _percent(figures["drifting"])),
        (
            f"replies with the right person, of {figures['person_asked']} where one is named",
            _percent(figures["person_right"]),
        ),
        ("two replies to one prompt that differ", _percent(figures["differ"])),
        ("replies without a flaw the grammar check knows", _percent(figures["clean_grammar"])),
        ("sampled sentences that stand in the corpus word for word", _percent(figures["verbatim"])),
        ("median length in words", str(figures["median_words"])),
        (
            f"replies per second, batches of 84, {figures['threads']} CPU threads",
            str(figures["replies_per_second"]),
        ),
    ]


def _axis_row(name: str, row: dict[str, float]) -> str:
    axis = AXES[name]
    return (
        f"| `{name}` | {axis.more} / {axis.less} | {_percent(row['rate'])} | "
        f"{_percent(row['tie'])} | {row['mean']:.2f} | {_percent(row['top'])} | {axis.sentence} |"
    )


def _detector_row(name: str, row: dict[str, float]) -> str:
    return (
        f"| {name} | {_percent(row['meant'])} | {_percent(row['seen'])} | "
        f"{row['precision']:.3f} | {row['recall']:.3f} |"
    )
