"""PPO on the taste of an oracle, beside DPO, RLOO and best-of-n on the same judgments.

    python -m tests.benchmarks.ppo [--oracle warm,short,…] [--methods ppo,leave_one_out,best,dpo,rloo] [--out FILE]

For each oracle a fresh home and the commands a user types: 400 judgments of the starter's replies, a reward model, and
every method with its defaults; ``leave_one_out`` is PPO's trainer in that mode, ``rloo`` is TRL's, which takes half an
hour. Each is measured on held-out prompts by the oracle itself, never by the reward model. Best-of-n draws so many
replies that its distance from the starter, at most ``log n - (n-1)/n`` nats, is the one PPO went, or the nearest that
``--most`` replies allow. Every row is appended to a JSONL file as soon as it is known, and ``--home DIR`` keeps the
homes and what was trained in them, so that a broken benchmark is taken up where it broke.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feedback.store.content.prompts import list_prompts
from feedback.types import SamplingSettings, Split
from tests.benchmarks.methods import JUDGE, REWARDED, Studio, prepare, train
from training.checkpoints.opening import open_policy
from training.evaluation.divergence import divergence
from training.evaluation.intervals import clustered
from training.evaluation.win_rate import describe_replies, picked, win_means
from training.generation.sampling import Reply, sample
from training.home import Home
from training.models.chat import Messages
from training.rewards.oracles import get_oracle
from training.rewards.scorers import open_picker
from training.starter.axes import AXES

ORACLES = ("warm", "short", "shorter", "lively")
METHODS = ("ppo", "leave_one_out", "best", "dpo", "rloo")
# PPO's trainer without a value: a reply is measured by the others to its prompt
LEAVE_ONE_OUT = ["baseline=leave_one_out", "per_prompt=4"]
HEADINGS = (
    "oracle", "method", "win rate over the starter", "KL, nats", "end by themselves", "words", "on topic", "seconds",
)  # fmt: skip
USUAL_KL = 5.0  # nats, where best-of-n is measured without PPO beside it
SAMPLES = 2  # replies per prompt, of a policy and of the starter it meets
TIMES = ("started_at", "ended_at")
Replies = list[list[Reply]]


class Bench:
    """One oracle's home, its held-out prompts, and the starter's replies to them, which every method has to beat."""

    def __init__(self, directory: Path, oracle: str, options: argparse.Namespace) -> None:
        self.studio, self.oracle, self.options = Studio(str(directory / oracle)), oracle, options
        if not (directory / oracle / "checkpoints" / JUDGE).exists():
            prepare(self.studio, options.judgments, oracle)
        self.home = Home(directory / oracle)
        self.db = self.home.open()
        rows = list_prompts(self.db, split=Split.evaluation, limit=options.prompts)
        self.prompts: list[Messages] = [row.messages for row in rows]
        kept = directory / f"starter-{options.prompts}-{options.most}.json"  # the same for every oracle
        if not kept.exists():
            drawn = self.draw("starter", options.most, seed=1)
            kept.write_text(json.dumps([[asdict(reply) for reply in own] for own in drawn]))
        self.starter: Replies = [[Reply(**one) for one in own] for own in json.loads(kept.read_text())]

    def draw(self, policy: str, samples: int, seed: int) -> Replies:
        """Replies of a policy to the held-out prompts."""
        loaded = open_policy(self.db, self.home, policy)
        return sample(loaded, self.prompts, samples, SamplingSettings(), seed, distinct=False)

    def train(self, method: str) -> tuple[str, float]:
        """The policy a method makes, unless it is there, and the seconds it took."""
        name = f"{method}-{self.options.seed}"
        if not (self.home.checkpoints / name).exists():
            changes = [one.partition(":")[2] for one in self.options.set if one.startswith(f"{method}:")]
            mode, trainer = (LEAVE_ONE_OUT, "ppo") if method == "leave_one_out" else ([], method)
            judge = [f"reward={JUDGE}"] if trainer in REWARDED else []
            began = time.perf_counter()
            train(self.studio, trainer, name, [*judge, *mode, *changes, f"seed={self.options.seed}"])
            return name, time.perf_counter() - began
        run = next(run for run in self.studio("runs", "list") if run["config"].get("name") == name)
        started, ended = (time.mktime(time.strptime(run[key][:19], "%Y-%m-%dT%H:%M:%S")) for key in TIMES)
        return name, ended - started

    def row(self, method: str, kl: float) -> dict[str, Any]:
        """What a method came to; ``kl`` is the distance best-of-n is to go."""
        before = [own[:SAMPLES] for own in self.starter]
        if method == "best":
            n = nearest_n(kl, self.options.most)
            own = picked(open_picker(self.db, self.home, JUDGE), self.prompts, [r[:n] for r in self.starter], n)
            # Its own draws must not meet themselves
            before = self.draw("starter", SAMPLES, seed=3)
            facts = {"method": f"best of {n}", "kl": math.log(n) - (n - 1) / n, "seconds": 0.0}
        else:
            name, seconds = self.train(method)
            own = self.draw(name, SAMPLES, seed=0)
            policies = (open_policy(self.db, self.home, one) for one in (name, "starter"))
            moved = divergence(*policies, self.prompts, own)
            facts = {"method": method, "kl": moved.per_reply, "seconds": seconds}
        means, ties = win_means(get_oracle(self.oracle), self.prompts, own, before)
        share = clustered(means, per_cluster=len(own[0]))
        return {
            "oracle": self.oracle,
            **facts,
            **{"seed": self.options.seed, "prompts": len(own), "ties": ties},
            **{"win_rate": share.value, "low": share.low, "high": share.high},
            # All there are: two of a prompt told the starter's own topic rate as 65 or 74 %, by the draw
            "before": {**describe_replies(self.starter), "on_topic": on_topic(self.prompts, self.starter)},
            "after": {**describe_replies(own), "on_topic": on_topic(self.prompts, own)},
        }


def nearest_n(kl: float, most: int) -> int:
    """The number of replies to choose from whose distance is nearest to ``kl`` nats, at most ``most``."""
    return min(range(2, most + 1), key=lambda n: abs(math.log(n) - (n - 1) / n - kl))


def on_topic(prompts: Sequence[Messages], replies: Replies) -> float:
    """The share of replies that keep to what was asked, as the starter's card counts it."""
    kept = [
        AXES["topical"].shows(messages[-1]["content"], reply.text)
        for messages, own in zip(prompts, replies, strict=True)
        for reply in own
    ]
    return sum(kept) / len(kept)


def table_row(found: dict[str, Any]) -> str:
    """One line of the table."""
    share = [100 * found[key] for key in ("win_rate", "low", "high")]
    before, after = found["before"], found["after"]
    cells = (
        found["oracle"],
        found["method"],
        f"{share[0]:.1f} % [{share[1]:.1f}, {share[2]:.1f}]",
        f"{found['kl']:.2f}",
        f"{100 * before['ended']:.0f} → {100 * after['ended']:.0f} %",
        f"{before['length']:.1f} → {after['length']:.1f}",
        f"{100 * before['on_topic']:.0f} → {100 * after['on_topic']:.0f} %",
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
            bench, kl = Bench(options.home or Path(fresh), oracle, options), USUAL_KL
            for method in options.methods.split(","):
                found = bench.row(method, kl)
                kl = found["kl"] if method == "ppo" else kl
                with options.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(table_row(found), flush=True)


if __name__ == "__main__":
    main()
