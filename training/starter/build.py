"""Build the starter policy: corpus, tokenizer, model, measurements, model card.

``python -m training.starter.build --out assets/starter`` does all of it, on a CPU in under an hour
or on a GPU in minutes. Work is kept under ``--work``; the same command after an interruption goes
on from the last saved step. Files are written beside the old ones and renamed at the end, so a
studio that serves the starter never sees half a model.

Where it departs from a usual recipe: loss is on reply tokens only, and a batch is a fixed budget of
tokens of similar length rather than a fixed number of rows, so that little time goes to padding.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from feedback.files import atomic_write
from training.bundled import PROMPTS_DIR, STARTER_DIR
from training.starter.corpus import examples, requests
from training.starter.loss import Encoded, batches, encode, reply_loss
from training.starter.tokenizer import CONTEXT, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Every number the build depends on."""

    corpus: int = 120_000
    """Distinct examples to train on; passes beyond the first reuse them."""
    passes: float = 1.0
    """How often the corpus is read."""
    batch_tokens: int = 4_096
    """Tokens in a batch, padding included."""
    rate: float = 2.5e-3
    """Peak learning rate; 2 % warm-up, then a cosine to a twentieth."""
    copy_weight: float = 3.0
    """Extra loss on rare words taken from the prompt, for the first half: names are copied sooner."""
    hidden: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 576
    seed: int = 11
    compiled: bool = True
    """Use torch.compile where a compiler is at hand: slow to start, then nearly twice as fast."""


def llama(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A fresh model of the recipe's shape, with its sampling defaults."""
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.04,
        )
    )
    model.generation_config = sampling_defaults(tokenizer)
    return model


def sampling_defaults(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Temperature 1, and no special token but the end may be sampled."""
    banned = sorted(set(tokenizer.all_special_ids) - {tokenizer.eos_token_id})
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=96,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=banned,
    )


def rate_at(step: int, total: int, peak: float) -> float:
    """Linear warm-up over 2 % of the steps, then half a cosine down to a twentieth of the peak."""
    warm = max(total // 50, 1)
    if step < warm:
        return peak * (step + 1) / warm
    share = (step - warm) / max(total - warm, 1)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def train(model: LlamaForCausalLM, data: Encoded, recipe: Recipe, work: Path) -> None:
    """Train in place; resume from ``work`` and leave a saved state there every few minutes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()  # type: ignore[arg-type]
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    per_pass = sum(1 for _ in batches(data, recipe.batch_tokens, recipe.seed))
    total = int(per_pass * recipe.passes)
    done = _resume(model, optimizer, work / "state.pt", device)
    if recipe.compiled:
        model.model.forward = _compiled(model.model.forward)
    stream = _passes(data, recipe, per_pass, done)
    began, seen, saved = time.monotonic(), 0, time.monotonic()
    for step in range(done, total):
        tokens, labels, copied = (t.to(device) for t in next(stream))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, total, recipe.rate)
        with torch.autocast(device, dtype=torch.bfloat16):
            boost = recipe.copy_weight if step < total // 2 else 1.0
            loss = reply_loss(model, (tokens, labels, copied), boost)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += tokens.numel()
        if step % 20 == 0 or step + 1 == total:
            _report(step + 1, total, step + 1 - done, loss.item(), seen, time.monotonic() - began)
        if time.monotonic() - saved > 180:
            _save_state(model, optimizer, step + 1, work / "state.pt")
            saved = time.monotonic()
    model.model.__dict__.pop("forward", None)
    model.eval()


def _compiled(forward):  # type: ignore[no-untyped-def]
    """Compile where a compiler is at hand; eager is about a third slower and needs nothing."""
    usable = torch.cuda.is_available() or shutil.which("g++") is not None
    return torch.compile(forward, dynamic=True) if usable else forward


def _passes(data: Encoded, recipe: Recipe, per_pass: int, done: int) -> Iterator:
    first = done // per_pass
    skip = done % per_pass
    for number in range(first, math.ceil(recipe.passes) + 1):
        for index, batch in enumerate(batches(data, recipe.batch_tokens, recipe.seed + number)):
            if number > first or index >= skip:
                yield batch


def _report(step: int, total: int, mine: int, loss: float, seen: int, seconds: float) -> None:
    left = (total - step) * seconds / mine
    print(
        f"step {step}/{total}  loss {loss:.3f}  {seen / seconds:,.0f} tokens/s  "
        f"{seconds / 60:.1f} min, {left / 60:.1f} min left",
        flush=True,
    )


def _save_state(model, optimizer, step: int, path: Path) -> None:  # type: ignore[no-untyped-def]
    with atomic_write(path) as file:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file)


def _resume(model, optimizer, path: Path, device: str) -> int:  # type: ignore[no-untyped-def]
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on from step {state['step']}", flush=True)
    return state["step"]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the policy beside ``out`` and rename file by file, weights last."""
    fresh = out.parent / f".{out.name}-new"
    shutil.rmtree(fresh, ignore_errors=True)
    tokenizer.save_pretrained(fresh)
    model.to("cpu", torch.bfloat16).save_pretrained(fresh)  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    _plain_tokenizer_config(fresh / "tokenizer_config.json")
    for path in sorted(fresh.iterdir(), key=lambda p: p.suffix == ".safetensors"):
        path.chmod(0o644)
        path.replace(out / path.name)
    fresh.rmdir()


def _plain_tokenizer_config(path: Path) -> None:
    """Keep what any ``transformers`` reads, and none of this machine's loading options."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only"):
        config.pop(key, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_prompts(folder: Path, work: int = 420, evaluation: int = 210) -> None:
    """Write the prompts a new studio offers, and the disjoint ones it evaluates on."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("work", work), ("evaluation", evaluation)):
        rows = (
            {
                "messages": [{"role": "user", "content": draft.prompt}],
                "split": split,
                "tags": ["starter", draft.family],
            }
            for draft in requests(5, count, evaluation=split == "evaluation")
        )
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def build(out: Path, work: Path, recipe: Recipe) -> None:
    """Run every stage; stages whose result lies in ``work`` are not repeated."""
    work.mkdir(parents=True, exist_ok=True)
    _refuse_other_recipe(work / "recipe.json", recipe)
    began = time.monotonic()
    corpus = list(examples(1, recipe.corpus))
    print(f"corpus: {len(corpus):,} examples in {time.monotonic() - began:.0f} s", flush=True)
    if (work / "tokenizer").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    else:
        tokenizer = train_tokenizer(t for e in corpus[:40_000] for t in (e.prompt, e.reply))
        tokenizer.save_pretrained(work / "tokenizer")
    data = encode(corpus, tokenizer)
    print(f"{len(data):,} examples kept, {len(data.tokens):,} tokens", flush=True)
    model = llama(recipe, tokenizer)
    print(f"{model.num_parameters():,} parameters", flush=True)
    train(model, data, recipe, work)
    save(model, tokenizer, out)
    _note_training(work / "training.json", recipe, data, model, time.monotonic() - began)


def _refuse_other_recipe(path: Path, recipe: Recipe) -> None:
    """A saved state only continues under the recipe that began it; its length may be changed."""
    told = asdict(recipe)
    for free in ("passes", "compiled"):
        told.pop(free)
    wanted = json.dumps(told, indent=1)
    if path.exists() and path.read_text() != wanted:
        raise SystemExit(f"{path.parent} holds another recipe's work; give another --work.")
    path.write_text(wanted)


def _note_training(path: Path, recipe: Recipe, data: Encoded, model: LlamaForCausalLM, seconds: float) -> None:
    facts = {
        "corpus": recipe.corpus,
        "examples": len(data),
        "tokens": len(data.tokens),
        "parameters": model.num_parameters(),
        "minutes": round(seconds / 60, 1),
        "threads": torch.get_num_threads(),
    }
    path.write_text(json.dumps(facts, indent=1))


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=STARTER_DIR, help="where the policy goes")
    parser.add_argument("--work", type=Path, default=Path("build/starter"),
                        help="where an interrupted build keeps its state")  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--corpus", type=int, default=Recipe.corpus, help="examples to compose")
    parser.add_argument("--passes", type=float, default=Recipe.passes, help="passes over them")
    parser.add_argument("--no-measure", action="store_true", help="leave the model card alone")
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(corpus=args.corpus, passes=args.passes, compiled=not args.eager)
    write_prompts(PROMPTS_DIR)
    build(args.out, args.work, recipe)
    if not args.no_measure:
        from training.starter.measure import measure_and_write_card

        measure_and_write_card(args.out, training=args.work / "training.json")


if __name__ == "__main__":
    main()
