"""PPO on the taste of an oracle, beside DPO, RLOO and best-of-n on the same judgments.

    python -m tests.benchmarks.ppo [--oracle warm,short,lively] [--methods ppo,dpo,rloo,best] [--out FILE]

For each oracle a fresh home and the commands a user types: 400 judgments of the starter's replies, a reward model, and
every method with its defaults. Each is measured on held-out prompts by the oracle itself, never by the reward model.
Best-of-n draws so many replies that its distance from the starter, at most ``log n - (n-1)/n`` nats, is the one PPO
went, or the nearest that ``--most`` replies allow. Every row is appended to a JSONL file as soon as it is known, and
``--home DIR`` keeps the homes, so that a broken benchmark is taken up where it broke.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.methods import Studio, measure, prepare, train

ORACLES = ("warm", "short", "lively")
METHODS = ("ppo", "dpo", "rloo", "best")
HEADINGS = (
    "oracle", "method", "win rate over the starter", "KL, nats", "end by themselves", "words", "on topic", "seconds",
)  # fmt: skip
USUAL_KL = 4.0  # nats, where best-of-n is measured without PPO beside it


def nearest_n(kl: float, most: int) -> int:
    """The number of replies to choose from whose distance is nearest to ``kl`` nats, at most ``most``."""
    return min(range(2, most + 1), key=lambda n: abs(math.log(n) - (n - 1) / n - kl))


def topic_rate(studio: Studio, policy: str, prompts: int, best_of: int = 1) -> float:
    """The share of replies to held-out prompts that keep to what was asked, as the starter's card counts it."""
    from feedback.store.prompts import list_prompts
    from feedback.types import SamplingSettings, Split
    from training.checkpoints import open_policy
    from training.evaluate import picked
    from training.home import Home
    from training.rewards import open_picker
    from training.sampling import sample
    from training.starter.axes import AXES

    home = Home(Path(studio.home))
    db = home.open()
    asked = [row.messages for row in list_prompts(db, split=Split.evaluation, limit=prompts)]
    replies = sample(open_policy(db, home, policy), asked, 2 * best_of, SamplingSettings(), 0)
    if best_of > 1:
        replies = picked(open_picker(db, home, "judge"), asked, replies, best_of)
    kept = [
        AXES["topical"].shows(messages[-1]["content"], reply.text)
        for messages, own in zip(asked, replies, strict=True)
        for reply in own
    ]
    return sum(kept) / len(kept)


def judged(studio: Studio, oracle: str, judgments: int) -> dict[str, Any]:
    """Judgments, dataset and reward model of an oracle, made where they are missing; what the reward model is worth."""
    if "judge" not in [one["name"] for one in studio("checkpoints", "list")]:
        prepare(studio, judgments, oracle)
    card: dict[str, Any] = studio("evaluate", "--reward", "judge", "--oracle", oracle)
    return card


def one_row(studio: Studio, oracle: str, method: str, options: argparse.Namespace, kl: float) -> dict[str, Any]:
    """Train by a method, unless an earlier benchmark of this home did, and measure what came of it."""
    best_of, extra, name, seconds = 1, [], "starter", 0.0
    if method == "best":
        best_of = nearest_n(kl, options.most)
        extra = ["--best-of", str(best_of), "--picker", "judge"]
    else:
        name = f"{method}-{options.seed}"
        seconds = train(studio, method, name, [*options.set, f"{method}:seed={options.seed}"])
    figures = measure(studio, name, "starter", oracle, options.prompts, *extra)
    return {
        "oracle": oracle,
        "method": f"best of {best_of}" if method == "best" else method,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "on_topic": topic_rate(studio, name, options.prompts, best_of),
        "starter_on_topic": topic_rate(studio, "starter", options.prompts),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **figures,
    }


def table_row(found: dict[str, Any]) -> str:
    """One line of the table."""
    share = [100 * found[key] for key in ("win_rate", "low", "high")]
    cells = (
        found["oracle"],
        found["method"],
        f"{share[0]:.1f} % [{share[1]:.1f}, {share[2]:.1f}]",
        f"{found.get('best_of_kl', found['kl']):.2f}",
        f"{100 * found['ended_before']:.0f} → {100 * found['ended_after']:.0f} %",
        f"{found['length_before']:.1f} → {found['length_after']:.1f}",
        f"{100 * found['starter_on_topic']:.0f} → {100 * found['on_topic']:.0f} %",
        f"{found['seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--oracle", default=",".join(ORACLES), help="One, or several separated by commas.")
    parser.add_argument("--methods", default=",".join(METHODS), help="ppo first, so that best-of-n knows its distance.")
    parser.add_argument("--judgments", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=64, help="Replies that best-of-n may choose from.")
    parser.add_argument("--home", type=Path, help="A directory for the homes, kept; left out, none is kept.")
    parser.add_argument("--out", type=Path, default=Path("ppo.jsonl"), help="Rows are appended here.")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD:KEY=VALUE")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    with tempfile.TemporaryDirectory() as fresh:
        for oracle in options.oracle.split(","):
            studio = Studio(str((options.home or Path(fresh)) / oracle))
            card = judged(studio, oracle, options.judgments)
            write(options.out, {"oracle": oracle, "method": "reward", **card})
            kl = USUAL_KL
            for method in options.methods.split(","):
                found = one_row(studio, oracle, method, options, kl)
                kl = found["kl"] if method == "ppo" else kl
                write(options.out, found)
                print(table_row(found), flush=True)


def write(path: Path, found: dict[str, Any]) -> None:
    """Append one row, so that nothing is lost with what comes after it."""
    with path.open("a") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
