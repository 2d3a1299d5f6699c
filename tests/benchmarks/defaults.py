"""Which settings of a method win on a real model: one policy, several tastes, numbers of labels, seeds and settings.

    python -m tests.benchmarks.defaults --home DIR [--policy smollm2] [--method dpo] [--oracles shorter warm]
        [--labels 100 300] [--seeds 0] [--prompts 100] --try learning_rate=2e-5 --try learning_rate=3e-4,epochs=2

The policy replies twice to each of as many work prompts as the most labels need. Every oracle judges the same pairs in
a home of its own (a copy), so that rows of one oracle and number of labels differ in their settings and seed alone.
A row is the win rate over the policy it began with, on held-out prompts by the same oracle, with the length of the
replies, the share of them that end by themselves, KL and the time of the training. Rows are appended to
``defaults.jsonl`` in the home as soon as they are measured, and not measured again.

``--oracles function:sentiment`` judges by VADER's compound score, where ``vaderSentiment`` is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.methods import REWARDED, Row, Studio, train

SEED = 1
SPARE = 1.15  # of the pairs, some replies come out the same


def sentiment(prompt: str, reply: str) -> float:
    """How positive a reply is to VADER (Hutto and Gilbert 2014): -1 to 1."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-not-found]

    if not hasattr(sentiment, "analyzer"):
        sentiment.analyzer = SentimentIntensityAnalyzer()  # type: ignore[attr-defined]
    return float(sentiment.analyzer.polarity_scores(reply)["compound"])  # type: ignore[attr-defined]


def register_sentiment(directory: Path) -> None:
    """Make ``sentiment`` a reward function of an installed package, as a package of a user's own would be."""
    package = directory / "benchmark_rewards-0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-rewards\nVersion: 0\n")
    points = "[rlhf_studio.reward_functions]\nsentiment = tests.benchmarks.defaults:sentiment\n"
    (package / "entry_points.txt").write_text(points)
    root = Path(__file__).parents[2]
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(directory), str(root), known]))


def prepare_pool(home: Path, policy: str, labels: int) -> None:
    """Draw the pairs that all oracles judge, once."""
    if (home / "pool").exists():
        return
    building = home / "pool.partial"
    shutil.rmtree(building, ignore_errors=True)
    studio = Studio(str(building))
    if policy not in [one["name"] for one in studio("policies", "list")]:
        studio("policies", "add", policy)
        studio("policies", "promote", policy)
    studio("generate", "--policy", policy, "--limit", str(round(labels * SPARE)), "--seed", str(SEED))
    building.rename(home / "pool")


def prepare_labels(home: Path, oracle: str, labels: list[int]) -> Studio:
    """A copy of the pool, judged by one oracle, with a frozen dataset for each number of labels."""
    directory = home / oracle.replace(":", "-")
    if not directory.exists():
        shutil.copytree(home / "pool", directory)
    studio = Studio(str(directory))
    frozen = [one["name"] for one in studio("dataset", "list")]
    before = max((int(name.removeprefix("labels-")) for name in frozen), default=0)
    for count in sorted(count for count in labels if count > before):
        studio("judge", "--oracle", oracle, "--count", str(count - before), "--seed", str(SEED))
        studio("dataset", "freeze", f"labels-{count}", "--test-share", "0")
        before = count
    return studio


def measure(studio: Studio, row: Row, policy: str, prompts: int) -> Row:
    """Train by the settings of a row and measure what it won."""
    name, dataset = f"{row['method']}-{int(time.time())}", f"labels-{row['labels']}"
    settings = [*row["settings"], f"seed={row['seed']}"]
    if row["method"] in REWARDED:
        settings.append(f"reward={reward_of(studio, dataset)}")
    began = time.perf_counter()
    run = train(studio, row["method"], name, settings, dataset=dataset, parent=policy)
    seconds = time.perf_counter() - began
    after = studio("evaluate", name, policy, "--oracle", row["oracle"], "--prompts", str(prompts))
    return row | {"seconds": seconds, "result": run["result"], "prompts": prompts, "after": after}


def reward_of(studio: Studio, dataset: str) -> str:
    """The reward model of a dataset, trained with its defaults unless it exists; its time is in no row."""
    name = f"reward-of-{dataset}"
    if not (Path(studio.home) / "checkpoints" / name).exists():
        train(studio, "reward", name, [], dataset=dataset)
    return name


def key_of(row: Row) -> str:
    """What makes two rows measurements of the same thing."""
    return json.dumps([row[name] for name in ("method", "oracle", "labels", "seed", "settings")])


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    head = (
        "| method | oracle | labels | seed | settings | win rate | KL, nats | words | end by themselves | seconds |\n"
    )
    return head + "|---" * 10 + "|\n" + "\n".join(map(line, rows))


def line(row: Row) -> str:
    """One row as Markdown."""
    after = row["after"]
    win = "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * after[name] for name in ("win_rate", "low", "high")))
    words = f"{after['length_before']:.0f} → {after['length_after']:.0f}"
    ends = f"{100 * after['ended_before']:.0f} → {100 * after['ended_after']:.0f} %" if "ended_after" in after else ""
    cells: list[Any] = [
        row["method"],
        row["oracle"],
        row["labels"],
        row["seed"],
        ", ".join(row["settings"]) or "default",
    ]
    return f"| {' | '.join(map(str, cells))} | {win} | {after['kl']:.2f} | {words} | {ends} | {row['seconds']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--home", type=Path, required=True, help="Kept: what was measured there is not measured again.")
    parser.add_argument("--policy", default="smollm2")
    parser.add_argument("--method", default="dpo")
    parser.add_argument("--oracles", nargs="+", default=["shorter", "warm", "function:sentiment"])
    parser.add_argument("--labels", nargs="+", type=int, default=[100, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="KEY=VALUE,…")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    path = options.home / "defaults.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    with tempfile.TemporaryDirectory() as plugins:
        register_sentiment(Path(plugins))
        prepare_pool(options.home, options.policy, max(options.labels))
        for oracle in options.oracles:
            studio = prepare_labels(options.home, oracle, options.labels)
            for labels, seed, tried in (
                (labels, seed, tried)
                for labels in options.labels
                for seed in options.seeds
                for tried in options.tries or [""]
            ):
                settings = [part for part in tried.split(",") if part]
                row = {"method": options.method, "oracle": oracle, "labels": labels, "seed": seed, "settings": settings}
                if key_of(row) in map(key_of, rows):
                    continue
                rows.append(measure(studio, row, options.policy, options.prompts))
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(line(rows[-1]), flush=True)
    print(f"\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
