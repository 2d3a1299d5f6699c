"""One round of the loop on a fresh home for several oracles: how long each stage takes and how far the policy moves.

    python -m tests.benchmarks.loop [--pairs 200] [--oracles warm,shorter,…]

Runs the same command a user types, ``studio loop --rounds 1 --method dpo --oracle RULE``, each on a home of its
own, and prints one row per oracle from its ``--json`` report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from training.starter.axes import AXES


def run(oracle: str, pairs: int) -> dict[str, Any]:
    """The report of one loop on a fresh home, with the seconds it took from typing to ending."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "studio.cli", "--home", home, "loop", "--rounds", "1", "--json"]
        command += ["--pairs", str(pairs), "--oracle", oracle, "--method", "dpo"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {"wall": time.perf_counter() - start, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--oracles", default=",".join(AXES))
    options = parser.parse_args()
    for oracle in options.oracles.split(","):
        print(oracle, json.dumps(run(oracle, options.pairs), indent=2), flush=True)


if __name__ == "__main__":
    main()
