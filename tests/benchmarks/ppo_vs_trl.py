"""Our PPO beside the last one TRL had (1.12, experimental): the same model, prompts and sizes, in turn.

    python -m tests.benchmarks.ppo_vs_trl [--episodes 128] [--tokens 64] [--epochs 4] [--threads 4] [--venv DIR]

TRL 1.12 is installed into an environment of its own, kept in the user's cache. Both sides train the starter under LoRA
of the same rank for policy and value, with a reward model of the same size whose head is random, on the same prompts,
as many episodes in batches of 64 and minibatches of 16, as many epochs and tokens of reply, in fp32, without gradient
checkpointing. TRL is given what makes it quick: no sample generations, no saving, one microbatch per minibatch. Ours
saves its state at every iteration as always; only the looks at prompts kept apart are off. Each side runs in fresh
processes, in the order ours, theirs, theirs, ours. Memory is the peak above what the process held once all was
imported and nothing loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("trl==1.12.0", "torch==2.13.0", "transformers==5.5.0", "peft==0.21.2")
BATCH, MINIBATCH = 64, 16
RATE = 1e-4
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
HEADINGS = ("side", "episodes/s", "seconds", "CPU seconds", "peak MB above idle", "idle MB", "tokens per reply")


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """One run of our learner; the reward model is an adapter with a random head, as the peer's is a model with one."""
    import training  # noqa: F401  # sets how threads wait, which torch reads when it is first imported
    import torch  # isort: skip

    from training.adapters.build import adapter_config
    from training.ppo.canary import Canary
    from training.ppo.learner import Learner
    from training.ppo.reward_roles import RewardRole, RewardRoles
    from training.ppo.rollouts import PoolPrompt, PromptPool
    from training.ppo.setup import build_backbone
    from training.reporting.reporter import LocalProgress
    from training.settings.ppo import PpoSettings

    def train() -> dict[str, Any]:
        settings = PpoSettings(
            reward_function="no_repetition", iterations=work["episodes"] // BATCH, episodes=BATCH, batch_size=MINIBATCH,
            max_new_tokens=work["tokens"], epochs=work["epochs"], lora_rank=work["rank"], lora_alpha=2 * work["rank"],
            learning_rate=RATE, value_learning_rate=RATE, value_warmup=0, divergence_stop=100.0, canary_every=0,
        )  # fmt: skip
        backbone, adapters, ends, _ = build_backbone(work["base"], None, [], settings, "cpu")
        adapters.create("reward_0", adapter_config(settings, "CAUSAL_LM"))
        backbone.add_head("reward_0", torch.randn(1, backbone.model.config.hidden_size) * 0.05)
        scorer = RewardRoles(backbone, [RewardRole("reward_0", "random")])
        pool = [
            PoolPrompt(str(place), [{"role": "user", "content": text}], tuple(ids))
            for place, (text, ids) in enumerate(zip(work["texts"], work["prompts"], strict=True))
        ]
        progress = LocalProgress()
        with tempfile.TemporaryDirectory() as directory:
            learner = Learner(
                backbone,
                scorer,
                PromptPool(pool, 0),
                Canary([], scorer, settings),
                settings,
                progress,
                Path(directory),
                ends=ends,
            )
            began = time.monotonic(), time.process_time()
            learner.learn()
            seconds = time.monotonic() - began[0], time.process_time() - began[1]
        lengths = [point.value for point in progress.points if point.name == "tokens"]
        return {"seconds": seconds, "tokens": sum(lengths) / len(lengths)}

    return above_idle(train)


def theirs(work: dict[str, Any]) -> dict[str, Any]:
    """One run of TRL's trainer. Only the policy takes a ``peft_config``; the value is given its LoRA here."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    def lora(task: str) -> Any:
        wide = {"r": work["rank"], "lora_alpha": 2 * work["rank"], "lora_dropout": 0.0}
        exclude = ["score"] if task == "SEQ_CLS" else None
        return LoraConfig(target_modules="all-linear", exclude_modules=exclude, task_type=task, **wide)

    class Lengths(TrainerCallback):  # type: ignore[misc]
        found: list[float] = []

    def train() -> dict[str, Any]:
        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(work["base"], padding_side="left")
        policy = AutoModelForCausalLM.from_pretrained(work["base"], dtype=torch.float32)
        kind = AutoModelForSequenceClassification
        reward = kind.from_pretrained(work["base"], num_labels=1, dtype=torch.float32).requires_grad_(False)
        value = kind.from_pretrained(work["base"], num_labels=1, dtype=torch.float32)
        inject_adapter_in_model(lora("SEQ_CLS"), value)
        value.score.requires_grad_(True)
        with tempfile.TemporaryDirectory() as directory:
            config = PPOConfig(
                output_dir=directory, total_episodes=work["episodes"], per_device_train_batch_size=MINIBATCH,
                gradient_accumulation_steps=BATCH // MINIBATCH, num_mini_batches=BATCH // MINIBATCH,
                num_ppo_epochs=work["epochs"], response_length=work["tokens"], temperature=1.0, stop_token="eos",
                missing_eos_penalty=1.0, learning_rate=RATE, local_rollout_forward_batch_size=BATCH,
                num_sample_generations=0, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to=[],
                save_strategy="no", disable_tqdm=True, seed=0, dataloader_pin_memory=False,
            )  # fmt: skip
            prompts = Dataset.from_list([{"input_ids": ids} for ids in work["prompts"]])
            trainer = PPOTrainer(
                args=config, processing_class=tokenizer, model=policy, ref_model=None, reward_model=reward,
                value_model=value, train_dataset=prompts, eval_dataset=prompts.select(range(BATCH)),
                peft_config=lora("CAUSAL_LM"),
            )  # fmt: skip
            began = time.monotonic(), time.process_time()
            trainer.train()
            seconds = time.monotonic() - began[0], time.process_time() - began[1]
        return {"seconds": seconds, "tokens": float("nan")}

    return above_idle(train)


def above_idle(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``train`` says, with the most memory it held above what was held before, in MB."""
    idle = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    found = train()
    return {**found, "peak": memory("VmHWM") - idle, "idle": idle}


def memory(name: str) -> float:
    """A figure of this process in MB: VmRSS what it holds, VmHWM the most it ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def install(venv: Path) -> Path:
    """The Python of the peer's environment, made where it is missing."""
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        print(f"installing {', '.join(PACKAGES)} into {venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (venv / "complete").touch()
    return python


def make_work(options: argparse.Namespace) -> dict[str, Any]:
    """Prompts as text and tokens, and the sizes: all that either side is told."""
    from training.bundled import STARTER_BASE, STARTER_DIR
    from training.models.chat import encode_prompt
    from training.models.loading import load_base
    from training.starter.corpus import examples

    _, tokenizer = load_base(STARTER_BASE, "cpu")
    texts = list(dict.fromkeys(example.prompt for example in examples(5, 20 * options.episodes)))[: options.episodes]
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    sizes = {key: getattr(options, key) for key in ("episodes", "tokens", "epochs", "rank")}
    return {**sizes, "base": str(STARTER_DIR), "texts": texts, "prompts": prompts}


def run(side: str, python: Path, work: Path, threads: int) -> dict[str, Any]:
    """One side in a fresh process."""
    root = Path(__file__).parents[2]
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING}  # each side has its own way
    environment = inherited | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    environment["PYTHONPATH"] = str(root) if side == "ours" else ""
    command = [str(python), "-W", "ignore", __file__, "--side", side, "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(found: dict[str, list[dict[str, Any]]], episodes: int) -> None:
    """The table of both sides, and the ratios."""
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    means: dict[str, list[float]] = {}
    for side, runs in found.items():
        wall, cpu = (sum(one["seconds"][i] for one in runs) / len(runs) for i in (0, 1))
        peak, idle, tokens = (sum(one[key] for one in runs) / len(runs) for key in ("peak", "idle", "tokens"))
        means[side] = [wall, cpu, peak]
        cells = (f"{episodes / wall:.2f}", f"{wall:.1f}", f"{cpu:.1f}", f"{peak:.0f}", f"{idle:.0f}", f"{tokens:.1f}")
        print(f"| {side} | {' | '.join(cells)} |")
    ratios = [b / a for a, b in zip(means["ours"], means["TRL 1.12"], strict=True)]
    print(f"TRL / ours: {ratios[0]:.2f} in time, {ratios[1]:.2f} in CPU time, {ratios[2]:.2f} in memory", flush=True)


def main() -> None:
    """Both sides in turn, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=128, help="A multiple of 64.")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=2, help="How often each side runs.")
    parser.add_argument("--venv", type=Path, default=Path("~/.cache/rlhf-studio/trl-1.12").expanduser())
    parser.add_argument("--side", choices=("ours", "TRL 1.12"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = ours if options.side == "ours" else theirs
        print(json.dumps(side(json.loads(options.work.read_text()))))
        return
    pythons = {"ours": Path(sys.executable), "TRL 1.12": install(options.venv)}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in pythons}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory) / "work.json"
        work.write_text(json.dumps(make_work(options)))
        for turn in range(options.rounds):
            for side in list(pythons)[:: -1 if turn % 2 else 1]:
                found[side].append(run(side, pythons[side], work, options.threads))
                print(f"{side}: {json.dumps(found[side][-1])}", flush=True)
    report(found, options.episodes)


if __name__ == "__main__":
    main()
