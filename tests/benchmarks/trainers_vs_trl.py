"""Our DPO and reward training against plain TRL trainers: same pairs, base, settings and seed, in one run.

    python -m tests.benchmarks.trainers_vs_trl [--pairs 96] [--steps 24]

The peer is ``trl.DPOTrainer`` and ``trl.RewardTrainer`` as TRL's own examples call them: text in, TRL's tokenisation
and collation, LoRA by ``peft_config``, reference by adapters off at every step, no callbacks. Both read the pairs in
the same order, so that the loss curves can be laid over one another; the noise on the embeddings is off, for the two
draw it at different moments. Order of the sides: ours, theirs, theirs, ours; times are the means.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from feedback.types import Message, PreferencePair, Role
from training.bundled import STARTER_BASE, STARTER_DIR
from training.starter.corpus import examples

BATCH = 16
RANK = 16


def make_pairs(count: int) -> list[PreferencePair]:
    """Two corpus replies to one prompt, the shorter one chosen: real texts of real lengths."""
    by_prompt: dict[str, list[str]] = {}
    pairs: list[PreferencePair] = []
    for example in examples(5, 400 * count):
        replies = by_prompt.setdefault(example.prompt, [])
        if example.reply not in replies:
            replies.append(example.reply)
        if len(replies) == 2:
            chosen, rejected = sorted(replies, key=len)
            number = len(pairs)
            pairs.append(
                PreferencePair(
                    prompt_id=f"p{number}",
                    matchup_id=f"m{number}",
                    messages=(Message(role=Role.user, content=example.prompt),),
                    chosen=chosen,
                    rejected=rejected,
                    chosen_generation=f"c{number}",
                    rejected_generation=f"r{number}",
                    judgment_ids=(f"j{number}",),
                )
            )
        if len(pairs) == count:
            break
    return pairs


def ours(method: str, pairs: Sequence[PreferencePair], steps: int) -> tuple[float, list[float]]:
    """Seconds of the whole call and the loss at each step."""
    from training.methods.dpo import train_dpo
    from training.methods.reward import train_reward
    from training.reporting.reporter import LocalProgress
    from training.settings.dpo import DpoSettings
    from training.settings.reward import RewardSettings

    shared: dict[str, Any] = {
        "dataset": "d", "epochs": 1, "min_steps": steps, "batch_size": BATCH, "learning_rate": 1e-3,
        "embedding_noise": 0.0, "lora_rank": RANK, "lora_alpha": 2 * RANK, "save_every": 10_000,
    }  # fmt: skip
    progress = LocalProgress()
    with tempfile.TemporaryDirectory() as directory:
        began = time.monotonic()
        if method == "dpo":
            train_dpo(STARTER_BASE, None, pairs, DpoSettings(**shared, anchor=0.0), Path(directory), progress)
        else:
            train_reward(STARTER_BASE, pairs, RewardSettings(**shared), Path(directory), progress)
        seconds = time.monotonic() - began
    return seconds, [point.value for point in progress.points if point.name == "loss"]


def theirs(method: str, pairs: Sequence[PreferencePair], steps: int) -> tuple[float, list[float]]:
    """The same by TRL alone; its sampler alone is ours, so that both read the pairs in one order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    from training.data.encoding import Encoder
    from training.data.pairs import LikeLengths, encode_pairs

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(STARTER_DIR)
    rows = [
        {
            "prompt": [{"role": "user", "content": pair.messages[0].content}],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
    ]
    with tempfile.TemporaryDirectory() as directory:
        arguments: dict[str, Any] = {
            "output_dir": directory, "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine", "warmup_steps": round(0.1 * steps), "logging_steps": 1, "seed": 0,
            "save_strategy": "no", "report_to": [], "disable_tqdm": True, "bf16": False, "use_cpu": True,
            "gradient_checkpointing": False, "max_length": None,
        }  # fmt: skip
        lora = LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0,
            task_type="CAUSAL_LM" if method == "dpo" else "SEQ_CLS",
        )  # fmt: skip
        shared: dict[str, Any] = {
            "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer, "peft_config": lora,
        }  # fmt: skip
        if method == "dpo":
            model = AutoModelForCausalLM.from_pretrained(STARTER_DIR, dtype=torch.float32)
            trainer: Any = DPOTrainer(model=model, args=DPOConfig(**arguments, beta=0.1), **shared)
        else:
            torch.manual_seed(0)
            kind = AutoModelForSequenceClassification
            model = kind.from_pretrained(STARTER_DIR, num_labels=1, dtype=torch.float32)
            model.config.pad_token_id = tokenizer.pad_token_id
            config = RewardConfig(**arguments, center_rewards_coefficient=0.01)
            trainer = RewardTrainer(model=model, args=config, **shared)
        lengths = [pair["length"] for pair in encode_pairs(Encoder(tokenizer, 10_000), pairs)]
        trainer._get_train_sampler = lambda *_: LikeLengths(lengths, BATCH, 0)
        trainer.train()
        seconds = time.monotonic() - began
        losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return seconds, losses


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither side's bars and logs between the lines of the table."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def compare(method: str, pairs: Sequence[PreferencePair], steps: int) -> None:
    """Both sides twice, and one line of a table."""
    sides: dict[str, list[tuple[float, list[float]]]] = {"ours": [], "theirs": []}
    run: dict[str, Callable[..., tuple[float, list[float]]]] = {"ours": ours, "theirs": theirs}
    for side in ("ours", "theirs", "theirs", "ours"):
        with quiet():
            sides[side].append(run[side](method, pairs, steps))
    times = {side: sum(seconds for seconds, _ in runs) / len(runs) for side, runs in sides.items()}
    curves = sides["ours"][0][1], sides["theirs"][0][1]
    apart = max(abs(a - b) for a, b in zip(*curves, strict=True))
    spread = max(abs(a - b) for a, b in zip(sides["theirs"][0][1], sides["theirs"][1][1], strict=True))
    print(
        f"| {method} | {len(pairs)} | {steps} | {times['ours']:.1f} | {times['theirs']:.1f} "
        f"| {times['theirs'] / times['ours']:.2f} | {apart:.1e} | {spread:.1e} |",
        flush=True,
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    pairs = make_pairs(options.pairs)
    with quiet():  # what the libraries import takes no part in the times
        ours("dpo", pairs[:BATCH], 1)
    print("| method | pairs | steps | ours s | TRL s | TRL / ours | largest loss difference | TRL to itself |")
    print("|---|---|---|---|---|---|---|---|")
    for method in ("reward", "dpo"):
        compare(method, pairs, options.steps)


if __name__ == "__main__":
    main()
