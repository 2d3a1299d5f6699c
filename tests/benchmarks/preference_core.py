"""Our DPO, reward, KTO and SFT training against plain TRL trainers: same pairs, order, seed, adapter and steps.

    python -m tests.benchmarks.preference_core [--models DIR ...] [--methods dpo ...] [--data short hh]
        [--steps 6] [--rounds 2] [--sides ours trl "trl best" "ours fp32" "trl fp32"]

Sides take turns, each in a process of its own, so that the most memory it held is its own. ``trl`` is a TRL trainer at
its defaults: bf16 under autocast, gradient checkpointing, the reference asked at every step. ``trl best`` precomputes
the reference and keeps activations. ``fp32`` sides compare loss curves; ``ours upper third`` trains those layers alone.
Both read token ids, so that the same tokens are learnt from; the time is that of the whole call without what the
libraries import. After the last step the loss on held-out pairs is measured in fp32 by one function for both sides.

``short`` are single questions; ``hh`` has the shape of the Anthropic HH pairs: dialogues of several turns with short
last replies. Steps are of 8 pairs (of 8 replies for KTO and SFT), TRL's default batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from feedback.datasets.examples import Demonstration, LabelledReply
from feedback.types import Message, PreferencePair, Role
from training.bundled import STARTER_BASE
from training.starter.corpus import examples

BATCH = 8
RANK = 16
RATE = 5e-5
HELD_OUT = 16
METHODS = ("dpo", "reward", "kto", "sft")
SIDES = ("ours", "trl", "trl best")
TURNS = (2, 3, 4)  # of a dialogue before its last question


def make_pairs(count: int, shape: str) -> list[PreferencePair]:
    """Pairs of corpus replies to one prompt, the shorter one chosen; for ``hh`` after a dialogue of other exchanges."""
    rng = random.Random(0)
    by_prompt: dict[str, list[str]] = {}
    said: list[tuple[str, str]] = []
    pairs: list[PreferencePair] = []
    for example in examples(5, 400 * count):
        replies = by_prompt.setdefault(example.prompt, [])
        if example.reply not in replies:
            replies.append(example.reply)
        if len(replies) != 2:
            said.append((example.prompt, example.reply))
            continue
        before = rng.sample(said, rng.choice(TURNS)) if shape == "hh" else []
        messages = [
            Message(role=role, content=content)
            for exchange in before
            for role, content in zip((Role.user, Role.assistant), exchange, strict=True)
        ]
        pairs.append(_pair(len(pairs), [*messages, Message(role=Role.user, content=example.prompt)], replies))
        if len(pairs) == count:
            break
    return pairs


def _pair(number: int, messages: Sequence[Message], replies: Sequence[str]) -> PreferencePair:
    chosen, rejected = sorted(replies, key=len)
    return PreferencePair(
        prompt_id=f"p{number}",
        matchup_id=f"m{number}",
        messages=tuple(messages),
        chosen=chosen,
        rejected=rejected,
        chosen_generation=f"c{number}",
        rejected_generation=f"r{number}",
        judgment_ids=(f"j{number}",),
    )


def material(method: str, pairs: Sequence[PreferencePair]) -> list[Any]:
    """What a method reads: the pairs; their replies as good and bad ones; or the chosen replies."""
    if method == "kto":
        return [
            LabelledReply(prompt_id=pair.prompt_id, messages=pair.messages, reply=reply, good=good)
            for pair in pairs
            for reply, good in ((pair.chosen, True), (pair.rejected, False))
        ]
    if method == "sft":
        return [
            Demonstration(prompt_id=pair.prompt_id, messages=pair.messages, reply=pair.chosen, origin="chosen")
            for pair in pairs
        ]
    return list(pairs)


def settings_of(method: str, steps: int, precision: str, layers: str = "all") -> Any:
    """Our settings; those that TRL does not have are off."""
    from training.settings.dpo import DpoSettings
    from training.settings.kto import KtoSettings
    from training.settings.reward import RewardSettings
    from training.settings.sft import SftSettings

    kind: Any = {"dpo": DpoSettings, "kto": KtoSettings, "reward": RewardSettings, "sft": SftSettings}[method]
    own: dict[str, Any] = {
        "dpo": {"anchor": 0.0},
        "reward": {"pooling": "last", "centering": 0.0},
        "kto": {"good_weight": 1.0, "bad_weight": 1.0},
        "sft": {},
    }
    return kind(
        dataset="d", epochs=1, min_steps=steps, batch_size=BATCH, learning_rate=RATE, embedding_noise=0.0,
        lora_rank=RANK, lora_alpha=2 * RANK, save_every=10_000, precision=precision, train_layers=layers, **own[method],
    )  # fmt: skip


def ours(method: str, base: str, pairs: Sequence[PreferencePair], settings: Any, directory: Path) -> Any:
    """The trained model under its adapter, and the loss at each step."""
    from training.methods.dpo import train_dpo
    from training.methods.kto import train_kto
    from training.methods.reward import train_reward
    from training.methods.sft import train_sft
    from training.reporting.reporter import LocalProgress

    progress = LocalProgress()
    rows = material(method, pairs)
    if method == "reward":
        model = train_reward(base, rows, settings, directory, progress).reward.model
    else:
        train: Any = {"dpo": train_dpo, "kto": train_kto, "sft": train_sft}[method]
        model = train(base, None, rows, settings, directory, progress).model
    return model, [point.value for point in progress.points if point.name == "loss"]


def theirs(
    method: str, base: str, pairs: Sequence[PreferencePair], settings: Any, directory: Path, *, best: bool, bf16: bool
) -> Any:
    """The same by TRL alone, on the same token ids in the same order."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from training.data.encoding import Encoder
    from training.data.pairs import LikeLengths, encode_pairs, prompt_groups
    from training.methods.kto import encode_labelled
    from training.methods.sft import encode_examples
    from training.models.base_files import local_directory

    path = local_directory(base) or base
    tokenizer = AutoTokenizer.from_pretrained(path)
    encoder, read = Encoder(tokenizer, settings.max_length), material(method, pairs)
    if method == "kto":
        encoded: Any = encode_labelled(encoder, read, settings.seed)
    else:
        encoded = encode_examples(encoder, read) if method == "sft" else encode_pairs(encoder, read)
    rows = [dict(row) for row in encoded]
    lengths, groups = [row.pop("length") for row in rows], prompt_groups(rows)
    rows = [{name: value for name, value in row.items() if name != "group"} for row in rows]
    if method == "reward":
        rows = [{f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in SIDES_OF_PAIR} for row in rows]
    kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
    torch.manual_seed(settings.seed)  # the new head's start
    model = kind.from_pretrained(path, dtype=torch.float32, **({"num_labels": 1} if method == "reward" else {}))
    model.config.pad_token_id = tokenizer.pad_token_id
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    name = {"dpo": "DPO", "reward": "Reward", "kto": "KTO", "sft": "SFT"}[method]
    trainer_class = getattr(trl, f"{name}Trainer")
    extra: dict[str, Any] = {"beta": settings.beta} if method in ("dpo", "kto") else {}
    if best and extra:
        extra["precompute_ref_log_probs"] = True
    arguments = getattr(trl, f"{name}Config")(
        output_dir=str(directory), max_steps=settings.min_steps, per_device_train_batch_size=BATCH,
        learning_rate=RATE, lr_scheduler_type="cosine", warmup_steps=round(settings.warmup * settings.min_steps),
        logging_steps=1, seed=settings.seed, save_strategy="no", report_to=[], disable_tqdm=True, max_length=None,
        use_cpu=True, dataloader_pin_memory=False, bf16=bf16, gradient_checkpointing=not best, **extra,
    )  # fmt: skip

    class Tokenized(trainer_class):  # type: ignore[misc, valid-type]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            return LikeLengths(lengths, BATCH, settings.seed, groups)

    trainer = Tokenized(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0,
            task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM",
        ),
    )  # fmt: skip
    trainer.train()
    return trainer.model, [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


SIDES_OF_PAIR = ("chosen", "rejected")


def held_out_loss(method: str, model: Any, base: str, pairs: Sequence[PreferencePair]) -> float:
    """The mean loss on pairs that were not learnt from, in fp32, by transformers' own forward.

    For DPO and KTO the loss of DPO with beta 0.1, for SFT the nats of a token of the chosen replies.
    """
    import torch
    from transformers import AutoTokenizer

    from training.data.encoding import Encoder
    from training.data.pairs import encode_pairs
    from training.models.base_files import local_directory

    model = model.float().eval()
    tokenizer = AutoTokenizer.from_pretrained(local_directory(base) or base)

    def score(prompt: list[int], reply: list[int]) -> Any:
        ids = torch.tensor([prompt + reply])
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        if method == "reward":
            return out[0, 0]
        return out[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).sum()

    losses = []
    with torch.no_grad():
        for pair in encode_pairs(Encoder(tokenizer, 10_000), pairs):
            sides = [(pair["prompt_ids"], pair["chosen_ids"]), (pair["prompt_ids"], pair["rejected_ids"])]
            lead = score(*sides[0]) - score(*sides[1])
            if method == "sft":
                losses.append(-float(score(*sides[0])) / len(sides[0][1]))
                continue
            if method != "reward":
                with model.disable_adapter():
                    lead = 0.1 * (lead - (score(*sides[0]) - score(*sides[1])))
            losses.append(float(-torch.nn.functional.logsigmoid(lead)))
    return statistics.fmean(losses)


def one(side: str, method: str, base: str, shape: str, steps: int) -> dict[str, Any]:
    """One side in this process: seconds, most memory above idle in MB, losses, and the loss on held-out pairs."""
    rows_of_pair = 2 if method == "kto" else 1
    pairs = make_pairs(BATCH * steps // rows_of_pair + HELD_OUT, shape)
    train, test = pairs[:-HELD_OUT], pairs[-HELD_OUT:]
    precision = "fp32" if side.endswith("fp32") else "auto"
    layers = next((share for share in ("upper third", "upper half") if share in side), "all")
    settings = settings_of(method, steps, precision, layers)
    _import_libraries()

    idle = _resident()
    with tempfile.TemporaryDirectory() as directory:
        began = time.monotonic()
        if side.startswith("ours"):
            model, losses = ours(method, base, train, settings, Path(directory))
        else:
            bf16, best = precision != "fp32", side == "trl best"
            model, losses = theirs(method, base, train, settings, Path(directory), best=best, bf16=bf16)
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - idle
    held_out = held_out_loss(method, model, base, test)
    return {"seconds": seconds, "peak_mb": round(peak), "losses": losses, "held_out": held_out}


def _import_libraries() -> None:
    """What both sides import takes no part in the times."""
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaForCausalLM  # noqa: F401
    from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer  # noqa: F401

    import training.methods.dpo
    import training.methods.kto
    import training.methods.reward
    import training.methods.sft  # noqa: F401


def _resident() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and logs among the lines of the table."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def in_its_own_process(side: str, *arguments: object) -> dict[str, Any]:
    """``one`` in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.preference_core", "--one", side, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(method: str, base: str, shape: str, sides: Sequence[str], steps: int, rounds: int) -> None:
    """All sides in turn, forwards and backwards, and one line of the table for each."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else list(reversed(sides)):
            found[side].append(in_its_own_process(side, method, base, shape, steps))
    first = statistics.fmean(run["seconds"] for run in found[sides[0]])
    curve = found[sides[0]][0]["losses"]
    for side in sides:
        runs = found[side]
        seconds = statistics.fmean(run["seconds"] for run in runs)
        apart = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(curve, runs[0]["losses"], strict=True))
        print(
            f"| {Path(base).name} | {method} | {shape} | {side} | {seconds:.1f} | {seconds / first:.2f} "
            f"| {max(run['peak_mb'] for run in runs)} | {apart:.1e} | {runs[0]['held_out']:.4f} |",
            flush=True,
        )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[STARTER_BASE])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--data", nargs="+", choices=("short", "hh"), default=("short", "hh"))
    parser.add_argument("--sides", nargs="+", default=SIDES)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.one:
        import transformers

        transformers.logging.set_verbosity_error()
        side, method, base, shape, steps = options.one
        with quiet():
            found = one(side, method, base, shape, int(steps))
        print(json.dumps(found))
        return
    print("| model | method | data | side | s | times ours | MB above idle | loss apart | held-out loss |")
    print("|---|---|---|---|---|---|---|---|---|")
    for base in options.models:
        for shape in options.data:
            for method in options.methods:
                compare(method, base, shape, options.sides, options.steps, options.rounds)


if __name__ == "__main__":
    main()
