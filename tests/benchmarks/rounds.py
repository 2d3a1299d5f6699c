"""Do several rounds beat one round with as many labels? Three rounds of 100 pairs against one of 300, by an oracle.

    python -m tests.benchmarks.rounds [--home DIR] [--policy starter] [--oracle warm] [--seeds 0 1 2]
        [--rounds 3] [--pairs 300] [--prompts 150]

For each seed both recipes start from the same policy in one home and are carried out by its worker. The policy that
each recipe promoted last is compared with the start, and the two with each other, on held-out prompts by the oracle. A
recipe that promoted nothing counts with the policy that it trained last: the second one is always held, because the
first has changed the champion meanwhile. A row is a seed; the last line is the mean of the last column with the
standard deviation between seeds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.methods import Studio

POLL_SECONDS = 15.0
"""Each look starts a process, which takes a second of a core from what is measured."""


@contextmanager
def worker(home: str) -> Iterator[None]:
    """A worker of the home, ended by its own process id."""
    process = subprocess.Popen([sys.executable, "-m", "training.worker", "--home", home], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def carry_out(studio: Studio, name: str, options: argparse.Namespace, seed: int, rounds: int) -> dict[str, Any]:
    """A recipe carried out to its end: its final policy, labels, seconds, and what its rounds came to."""
    began = time.monotonic()
    studio(
        "rounds", "start", name, "--policy", options.policy, "--annotator", options.oracle, "--promote", "auto",
        "--rounds", str(rounds), "--pairs", str(options.pairs // rounds), "--prompts", str(options.prompts),
        "--seed", str(seed),
    )  # fmt: skip
    while (recipe := studio("rounds", "show", name))["state"] == "active":
        time.sleep(POLL_SECONDS)
    if recipe["state"] != "finished":
        raise SystemExit(f"{name} is {recipe['state']}: {recipe['reason']}")
    trained = [one["evidence"]["policy"] for one in recipe["rounds"]]
    promoted = [one["evidence"]["policy"] for one in recipe["rounds"] if one["state"] == "promoted"]
    return {
        "policy": promoted[-1] if promoted else trained[-1],
        "states": [one["state"] for one in recipe["rounds"]],
        "labels": sum(one["evidence"]["judged"] for one in recipe["rounds"]),
        "seconds": time.monotonic() - began,
    }


def compared(studio: Studio, a: str, b: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A's win rate over B with its interval."""
    given = ("--oracle", options.oracle, "--prompts", str(options.prompts), "--seed", str(seed))
    figures: dict[str, Any] = studio("evaluate", a, b, *given)
    return figures


def measure(home: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both recipes of one seed, and the three comparisons."""
    studio = Studio(str(home))
    if options.policy not in [one["name"] for one in studio("policies", "list")]:
        studio("policies", "add", options.policy)
    with worker(str(home)):
        several = carry_out(studio, f"several-{seed}", options, seed, options.rounds)
        one = carry_out(studio, f"one-{seed}", options, seed, 1)
    return {
        "several": several,
        "one": one,
        "several over start": compared(studio, several["policy"], options.policy, options, seed),
        "one over start": compared(studio, one["policy"], options.policy, options, seed),
        "several over one": compared(studio, several["policy"], one["policy"], options, seed),
    }


def shown(figures: dict[str, Any]) -> str:
    """A win rate with its interval."""
    return f"{100 * figures['win_rate']:.1f} % [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"


def main() -> None:
    """Print one row a seed, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--policy", default="starter")
    parser.add_argument("--oracle", default="warm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=150)
    options = parser.parse_args()
    print("| seed | rounds ended | several over start | one over start | several over one | seconds |")
    print("|---|---|---|---|---|---|")
    rates = []
    for seed in options.seeds:
        home = (options.home or Path(tempfile.mkdtemp())) / f"seed-{seed}"
        row = measure(home, seed, options)
        rates.append(row["several over one"]["win_rate"])
        states = ", ".join(row["several"]["states"]) + " / " + ", ".join(row["one"]["states"])
        figures = [shown(row[name]) for name in ("several over start", "one over start", "several over one")]
        seconds = f"{row['several']['seconds']:.0f} / {row['one']['seconds']:.0f}"
        print("| " + " | ".join([str(seed), states, *figures, seconds]) + " |", flush=True)
    spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
    print(f"several over one, mean over seeds: {100 * statistics.fmean(rates):.1f} % (± {100 * spread:.1f})")


if __name__ == "__main__":
    main()
