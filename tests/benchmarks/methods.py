"""Every method on the same judgments of an oracle: how much better than the start it replies, and in what time.

    python -m tests.benchmarks.methods [--judgments 300] [--oracle warm] [--methods sft,dpo,kto,rft,rloo]

One fresh home and the commands a user types: generate, judge, freeze, train each method with its defaults on the
starter, measure its win rate over the starter on held-out prompts by the same oracle. ``rft``, ``rloo`` and ``ppo`` are
given the reward model trained on the same judgments. The best of eight replies, picked by it, is the baseline that
needs no training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

METHODS = ("sft", "dpo", "kto", "rft", "rloo")
REWARDED = ("rft", "rloo", "ppo")


class Studio:
    """The command line over one home."""

    def __init__(self, home: str) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> Any:
        """What a command says as JSON."""
        command = [sys.executable, "-m", "studio.cli", "--home", self.home, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def prepare(studio: Studio, judgments: int, oracle: str) -> tuple[dict[str, Any], float]:
    """Judgments, a dataset called ``d`` and a reward model called ``judge``; its result and the seconds it took."""
    studio("generate", "--policy", "starter", "--limit", str(judgments + judgments // 10), "--seed", "1")
    studio("judge", "--oracle", oracle, "--count", str(judgments), "--seed", "1")
    studio("dataset", "freeze", "d")
    began = time.perf_counter()
    run = studio("train", "reward", "--dataset", "d", "--name", "judge", "--wait")
    return run["result"], time.perf_counter() - began


def train(studio: Studio, method: str, name: str, changes: Sequence[str] = ()) -> float:
    """Train the starter by a method on ``d`` under a name, and give the seconds; ``changes`` are METHOD:KEY=VALUE."""
    settings = [one.partition(":")[2] for one in changes if one.startswith(f"{method}:")]
    settings += ["reward=judge"] if method in REWARDED else []
    flags = [flag for setting in settings for flag in ("--set", setting)]
    began = time.perf_counter()
    studio("train", method, "--dataset", "d", "--parent", "starter", "--name", name, "--wait", *flags)
    return time.perf_counter() - began


def measure(studio: Studio, name: str, against: str, oracle: str, prompts: int, *extra: str) -> dict[str, Any]:
    """Win rate with interval, KL and length of one policy over another."""
    figures: dict[str, Any] = studio("evaluate", name, against, "--oracle", oracle, "--prompts", str(prompts), *extra)
    return figures


def row(name: str, figures: dict[str, Any], seconds: float) -> str:
    """One line of the table."""
    share = [100 * figures[key] for key in ("win_rate", "low", "high")]
    words = f"{figures['length_before']:.1f} → {figures['length_after']:.1f}"
    kl = figures.get("best_of_kl", figures["kl"])
    return f"| {name} | {share[0]:.1f} % [{share[1]:.1f}, {share[2]:.1f}] | {kl:.2f} | {words} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judgments", type=int, default=300)
    parser.add_argument("--oracle", default="warm")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--home", help="A home to use again; left out, a fresh one.")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD:KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        studio = Studio(options.home or fresh)
        known = [one["name"] for one in studio("dataset", "list")] if options.home else []
        if "d" not in known:
            reward, seconds = prepare(studio, options.judgments, options.oracle)
            print(f"reward: {json.dumps(reward)} in {seconds:.0f} s", flush=True)
        print("| method | win rate over the start | KL, nats | words before → after | seconds |\n|---|---|---|---|---|")
        for method in filter(None, options.methods.split(",")):
            name = f"{method}-{int(time.time())}"
            took = train(studio, method, name, options.set)
            figures = measure(studio, name, "starter", options.oracle, options.prompts)
            print(row(method, figures, took), flush=True)
        figures = measure(
            studio, "starter", "starter", options.oracle, options.prompts, "--best-of", "8", "--picker", "judge"
        )
        print(row("best of 8, untrained", figures, 0.0), flush=True)


if __name__ == "__main__":
    main()
