"""Measure the starter policy and write its model card.

``python -m training.starter.measure assets/starter`` samples replies to the evaluation prompts at
temperature 1 with the shipped sampling defaults, reads them with the axis detectors, compares
their sentences with the corpus, and rewrites ``measurements.json`` and the card. Sampling is
seeded; the corpus side is exact. A share of n samples has a standard error of at most
``0.5 / sqrt(n)``.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from training.bundled import STARTER_DIR
from training.starter.axes import AXES, drifts, mentions
from training.starter.card import write_card
from training.starter.corpus import examples, requests
from training.starter.text.composition import Draft
from training.starter.text.grammar import flaws, sentences

EVALUATION_PROMPTS = 210
SAMPLES_EACH = 4
BATCH = 84


@dataclass(frozen=True)
class Sample:
    """One sampled reply and whether it ended by itself."""

    draft: Draft
    reply: str
    ended: bool


def load(folder: Path) -> tuple[Any, Any]:
    """The policy as any user of ``transformers`` loads it."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return model.eval(), tokenizer


def sample(model: Any, tokenizer: Any, drafts: list[Draft], seed: int, batch: int = BATCH) -> list[Sample]:
    """One reply to each draft, at the model's own sampling defaults."""
    torch.manual_seed(seed)
    samples = []
    for at in range(0, len(drafts), batch):
        part = drafts[at : at + batch]
        samples += [
            Sample(draft, reply, ended)
            for draft, (reply, ended) in zip(part, _generate(model, tokenizer, [d.prompt for d in part]), strict=True)
        ]
    return samples


def _generate(model: Any, tokenizer: Any, prompts: list[str]) -> list[tuple[str, bool]]:
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        out = model.generate(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    rows = out[:, encoded["input_ids"].shape[1] :]
    return [(tokenizer.decode(row, skip_special_tokens=True), tokenizer.eos_token_id in row.tolist()) for row in rows]


def measure(folder: Path, training: dict[str, Any]) -> dict[str, Any]:
    """Every figure of the card, as one JSON-ready dictionary."""
    from training.starter.loss import held_out_loss

    model, tokenizer = load(folder)
    if not isinstance(model, LlamaForCausalLM):
        raise SystemExit(f"{folder} holds no Llama model.")
    drafts = list(requests(5, EVALUATION_PROMPTS, evaluation=True))
    began = time.perf_counter()
    samples = sample(model, tokenizer, drafts * SAMPLES_EACH, seed=1)
    seconds = time.perf_counter() - began
    print(f"{len(samples)} replies in {seconds:.0f} s", flush=True)
    return {
        "training": training,
        "samples": len(samples),
        "held_out_loss": round(held_out_loss(model, tokenizer), 3),
        "replies_per_second": round(len(samples) / seconds, 1),
        "threads": torch.get_num_threads(),
        **_reading(samples),
        "verbatim": _verbatim((s.reply for s in samples), int(training["corpus"])),
        "axes": {name: _axis(name, samples) for name in AXES},
        "detectors": detectors(5600),
        "families": _by_family(samples),
        "shown": _shown(samples),
    }


def _reading(samples: list[Sample]) -> dict[str, float]:
    named = [s for s in samples if s.draft.person]
    words = sorted(len(s.reply.split()) for s in samples)
    return {
        "ended": _share(s.ended for s in samples),
        "subject_named": _share(mentions(s.draft.prompt, s.reply) > 0 for s in samples),
        "drifting": _share(drifts(s.reply) for s in samples),
        "person_right": _share(str(s.draft.person) in s.reply for s in named),
        "person_asked": len(named),
        "differ": _share(a.reply != b.reply for a, b in _pairs(samples)),
        "clean_grammar": _share(not flaws(s.reply) for s in samples),
        "median_words": words[len(words) // 2],
    }


def _share(hits: Iterable[bool]) -> float:
    listed = list(hits)
    return round(sum(listed) / max(len(listed), 1), 3)


def _pairs(samples: list[Sample]) -> list[tuple[Sample, Sample]]:
    """Every two replies to the same prompt."""
    by_prompt: dict[str, list[Sample]] = defaultdict(list)
    for one in samples:
        by_prompt[one.draft.prompt].append(one)
    return [pair for group in by_prompt.values() for pair in combinations(group, 2)]


def _axis(name: str, samples: list[Sample]) -> dict[str, float]:
    axis = AXES[name]
    scores = [axis.score(s.draft.prompt, s.reply) for s in samples]
    ties = (axis.score(a.draft.prompt, a.reply) == axis.score(b.draft.prompt, b.reply) for a, b in _pairs(samples))
    return {
        "rate": _share(axis.shows(s.draft.prompt, s.reply) for s in samples),
        "tie": _share(ties),
        "mean": round(sum(scores) / len(scores), 2),
        "top": _share(score == max(scores) for score in scores),
    }


def _verbatim(replies: Iterable[str], corpus: int) -> float:
    """The share of sampled sentences that stand in the training corpus word for word."""
    known = {part for one in examples(1, corpus) for part in sentences(one.reply)}
    return _share(part in known for reply in replies for part in sentences(reply))


def detectors(count: int) -> dict[str, dict[str, float]]:
    """Each detector against what the corpus's author meant: precision and recall.

    The corpus contains phrases that no detector knows, so recall stays below 1 by design.
    """
    corpus = list(examples(7, count))
    figures = {}
    for name, axis in AXES.items():
        if name == "topical":
            continue
        meant = [one.levels[name] >= axis._threshold for one in corpus]
        seen = [axis.shows(one.prompt, one.reply) for one in corpus]
        figures[name] = _precision_recall(meant, seen)
    drifted = [one.levels["topical"] < 0 for one in corpus]
    figures["drifting"] = _precision_recall(drifted, [drifts(one.reply) for one in corpus])
    return figures


def _precision_recall(meant: list[bool], seen: list[bool]) -> dict[str, float]:
    both = sum(m and s for m, s in zip(meant, seen, strict=True))
    return {
        "meant": round(sum(meant) / len(meant), 3),
        "seen": round(sum(seen) / len(seen), 3),
        "precision": round(both / max(sum(seen), 1), 3),
        "recall": round(both / max(sum(meant), 1), 3),
    }


def _by_family(samples: list[Sample]) -> dict[str, float]:
    families = sorted({s.draft.family for s in samples})
    return {
        family: _share(mentions(s.draft.prompt, s.reply) > 0 for s in samples if s.draft.family == family)
        for family in families
    }


def _shown(samples: list[Sample]) -> list[dict[str, str]]:
    """Ten replies drawn blindly, to be printed as they are."""
    drawn = Random(10).sample(samples, 10)
    return [{"prompt": s.draft.prompt, "reply": s.reply} for s in drawn]


def measure_and_write_card(folder: Path, training: Path | None = None) -> dict[str, Any]:
    """Measure a policy directory, then write its figures and its card into it."""
    kept = folder / "measurements.json"
    facts = json.loads(training.read_text()) if training else json.loads(kept.read_text(encoding="utf-8"))["training"]
    figures = measure(folder, facts)
    kept.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_card(folder / "README.md", figures)
    return figures


def main() -> None:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(description="Measure the starter policy; write its card.")
    parser.add_argument("folder", type=Path, nargs="?", default=STARTER_DIR)
    parser.add_argument("--training", type=Path, help="facts the build left (training.json)")
    args = parser.parse_args()
    figures = measure_and_write_card(args.folder, args.training)
    print(json.dumps({k: v for k, v in figures.items() if k != "shown"}, indent=1))


if __name__ == "__main__":
    main()
