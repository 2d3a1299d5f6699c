"""Every method under each adapter, on the same judgments of an oracle: what it gains over the start, and in what time.

    OMP_NUM_THREADS=2 python -m tests.benchmarks.methods [--home DIR] [--only dpo,bottleneck] [--set rloo:min_steps=40]

One home and the commands a user types: generate, judge, freeze, train each method with its defaults on the starter,
measure on held-out prompts by the same oracle. A policy's figure is its win rate over the starter (one half is no
better), a reward model's the share of fresh pairs it is right on, before its training and after. ``rft`` and ``rloo``
are given the reward model trained on the same judgments. The best of eight replies, picked by that reward model, is the
baseline that needs no training.

Each row is appended to ``methods.jsonl`` in the home as soon as it is measured. With the same ``--home`` a run that was
broken off goes on where it stopped; ``--only`` measures its row again; the last row of each kind is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS = ("reward", "sft", "dpo", "kto", "rft", "rloo")
ADAPTERS = ("lora", "bottleneck")
REWARDED = ("rft", "rloo", "ppo")
JUDGE = "judge"  # the reward model that those, and the best of eight, are given
BASELINE = ("best of 8", "none")
Row = dict[str, Any]


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


class Table:
    """The rows measured in a home, a line each in a file; a later row of the same method and adapter counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str], Row] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["method"], row["adapter"]] = row

    def add(self, row: Row) -> None:
        """Keep a row, on disk first."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[row["method"], row["adapter"]] = row

    def __str__(self) -> str:
        head = "| method | adapter | before → after | KL, nats | words | adapter parameters | seconds |\n"
        order = [(method, adapter) for method in METHODS for adapter in ADAPTERS] + [BASELINE]
        lines = [_line(self.rows[key]) for key in order if key in self.rows]
        return head + "|---|---|---|---|---|---|---|\n" + "\n".join(lines)


def prepare(studio: Studio, judgments: int, oracle: str) -> None:
    """Judgments, a dataset called ``d``, and the reward model that draws are scored by."""
    if "d" not in [one["name"] for one in studio("dataset", "list")]:
        studio("generate", "--policy", "starter", "--limit", str(judgments + judgments // 10), "--seed", "1")
        studio("judge", "--oracle", oracle, "--count", str(judgments), "--seed", "1")
        studio("dataset", "freeze", "d")
    if not (Path(studio.home) / "checkpoints" / JUDGE).exists():
        studio("train", "reward", "--dataset", "d", "--name", JUDGE, "--wait")


def measure(studio: Studio, method: str, adapter: str, extra: list[str], oracle: str, prompts: int) -> Row:
    """Train one method under one adapter and measure what came of it."""
    name = f"{method}-{adapter}-{int(time.time())}"
    settings = [f"adapter={adapter}", *([f"reward={JUDGE}"] if method in REWARDED else []), *extra]
    began = time.perf_counter()
    result = train(studio, method, name, settings)["result"]
    row: Row = {"method": method, "adapter": adapter, "settings": settings, "prompts": prompts, "oracle": oracle}
    row |= {"seconds": time.perf_counter() - began, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    row |= {"parameters": adapter_parameters(Path(studio.home) / "checkpoints" / name), "result": result}
    if method != "reward":
        return row | {"after": studio("evaluate", name, "starter", "--oracle", oracle, "--prompts", str(prompts))}
    still = [*settings, "learning_rate=1e-9", "min_steps=1", "epochs=1", "batch_size=512"]
    before = f"{name}-before"  # one step of no size: the head and adapter that training begins with
    train(studio, method, before, still)
    measured = [
        studio("evaluate", "--reward", one, "--oracle", oracle, "--prompts", str(prompts)) for one in (before, name)
    ]
    return row | {"before": measured[0], "after": measured[1]}


def train(
    studio: Studio, method: str, name: str, settings: list[str], dataset: str = "d", parent: str = "starter"
) -> Any:
    """One training to its end, as the command tells it."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    start = [] if method == "reward" else ["--parent", parent]
    return studio("train", method, "--dataset", dataset, *start, "--name", name, "--wait", *flags)


def best_of_eight(studio: Studio, oracle: str, prompts: int) -> Row:
    """What picking the best of eight replies gives without any training."""
    figures = studio(
        "evaluate", "starter", "starter", "--oracle", oracle, "--prompts", str(prompts),
        "--best-of", "8", "--picker", JUDGE,
    )  # fmt: skip
    row: Row = {"method": BASELINE[0], "adapter": BASELINE[1], "prompts": prompts, "oracle": oracle}
    return row | {"seconds": 0.0, "parameters": 0, "after": figures}


def adapter_parameters(checkpoint: Path) -> int:
    """How many numbers an adapter holds, its head left aside."""
    from safetensors import safe_open

    with safe_open(str(checkpoint / "adapter_model.safetensors"), "pt") as file:
        names = [name for name in file.keys() if ".score" not in name]  # noqa: SIM118 (no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _line(row: Row) -> str:
    after = row["after"]
    if row["method"] == "reward":
        gained = (
            f"{_share(row['before'], 'accuracy_')} → {_share(after, 'accuracy_')} right on {after['n_pairs']} pairs"
        )
        kl, words = "", ""
    else:
        gained = f"50 % → {_share(after)}"
        kl = f"{after.get('best_of_kl', after['kl']):.2f}"
        words = f"{after['length_before']:.1f} → {after['length_after']:.1f}"
    cells = (row["method"], row["adapter"], gained, kl, words, f"{row['parameters']:,}".replace(",", " "))
    return f"| {' | '.join(cells)} | {row['seconds']:.0f} |"


def _share(figures: Row, prefix: str = "") -> str:
    value, low, high = (
        100 * figures[key] for key in (prefix.rstrip("_") or "win_rate", f"{prefix}low", f"{prefix}high")
    )
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judgments", type=int, default=300)
    parser.add_argument("--oracle", default="warm")
    parser.add_argument("--prompts", type=int, default=150, help="Held-out prompts each row is measured on.")
    parser.add_argument("--only", action="append", metavar="METHOD[,ADAPTER]", help="This row alone; may be repeated.")
    parser.add_argument("--home", help="A home to use again; left out, a fresh one.")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD:KEY=VALUE")
    options = parser.parse_args()
    wanted = [tuple(one.split(",")) for one in options.only or []]
    with tempfile.TemporaryDirectory() as fresh:
        studio = Studio(options.home or fresh)
        prepare(studio, options.judgments, options.oracle)
        table = Table(Path(studio.home) / "methods.jsonl")
        for method in METHODS:
            for adapter in ADAPTERS:
                asked = (method,) in wanted or (method, adapter) in wanted
                if asked or not (wanted or (method, adapter) in table.rows):
                    extra = [one.partition(":")[2] for one in options.set if one.startswith(f"{method}:")]
                    table.add(measure(studio, method, adapter, extra, options.oracle, options.prompts))
                    print(_line(table.rows[method, adapter]), flush=True)
        if not wanted and BASELINE not in table.rows:
            table.add(best_of_eight(studio, options.oracle, options.prompts))
        print(f"\n{table}", flush=True)


if __name__ == "__main__":
    main()
