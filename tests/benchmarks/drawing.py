"""Drawing replies beside ``transformers`` ``generate``: same prompts, model and limits, sides in turn in one run.

    python -m tests.benchmarks.drawing [--model DIR] [--rounds 2] [--peer-bf16] [--skip-run]

Both sides draw ``--per-prompt`` replies of at most ``--tokens`` tokens to each of ``--prompts`` bundled prompts, at
temperature 1. The peer is given the prompts sorted by length and left-padded, at each batch size once; then its best
size meets ours. Replies differ in length, so tokens per second are compared: those up to a reply's end.
Memory is what the process grew by at most. Ours is measured in fp32 as well, and the peer with its weights in bf16
where asked for.

Then a fresh home, ``studio generate`` of 50 prompts, and the seconds until the first pair is in the pool: from typing,
and from the start of the run.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.formats.base.prompts import read_prompts
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import list_runs
from feedback.types import SamplingSettings
from training.bundled import PROMPTS_DIR, STARTER_BASE
from training.checkpoints.registration import add_policy
from training.generation.sampling import end_tokens, sample, use_half
from training.home import Home
from training.models.chat import Messages, encode_prompt
from training.models.loading import LoadedPolicy, load_base
from training.operations.seed import seed_home

PEER_SIZES = (8, 16, 32, 64, 100)
LOOK_SECONDS = 0.05


@dataclass
class Measured:
    """What one side took for all replies."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second over all rounds."""
        return sum(self.tokens) / sum(self.seconds)

    def row(self) -> str:
        """The figures as the end of a table's row."""
        mean = sum(self.seconds) / len(self.seconds)
        each = ", ".join(f"{tokens / seconds:.0f}" for tokens, seconds in zip(self.tokens, self.seconds, strict=True))
        tokens = sum(self.tokens) // len(self.tokens)
        return f"{mean:.1f} | {tokens} | {self.rate:.0f} ({each}) | {max(self.megabytes):.0f}"


class PeakMemory:
    """The most that this process grew by during the block, in MB."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._before = self._peak = resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.megabytes = (self._peak - self._before) / 1e6

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._peak = max(self._peak, resident())


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(into: Measured, draw: Callable[[], int]) -> None:
    """Call ``draw``, which returns how many tokens it drew."""
    with PeakMemory() as memory:
        began = time.perf_counter()
        tokens = draw()
        into.seconds.append(time.perf_counter() - began)
    into.tokens.append(tokens)
    into.megabytes.append(memory.megabytes)


def ours(policy: LoadedPolicy, prompts: Sequence[Messages], k: int, tokens: int, seed: int) -> int:
    """Draw as a measurement does, each reply once."""
    drawn = sample(policy, prompts, k, SamplingSettings(max_new_tokens=tokens), seed, distinct=False)
    return sum(len(reply.token_ids) for own in drawn for reply in own)


def theirs(model: Any, tokenizer: Any, ends: list[int], rows: Sequence[list[int]], size: int, tokens: int) -> int:
    """Draw a reply to each row of token ids by ``generate``, ``size`` at a time."""
    import torch

    drawn = 0
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        width = max(map(len, part))
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=tokens,
                eos_token_id=ends,
                pad_token_id=pad,
            )
        for row in out[:, width:].tolist():
            drawn += next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return drawn


def compare(options: argparse.Namespace) -> None:
    """Print a table of both sides."""
    import torch

    model, tokenizer = load_base(options.model, "cpu")
    policy = LoadedPolicy(model, tokenizer, options.model)
    messages: list[Messages] = [row.messages for row in read_prompts(PROMPTS_DIR / "work.jsonl")][: options.prompts]
    ends = end_tokens(policy)
    rows = [encode_prompt(tokenizer, own) for own in messages for _ in range(options.per_prompt)]
    rows.sort(key=len)
    print(f"{torch.get_num_threads()} threads, {len(rows)} replies of at most {options.tokens} tokens\n")
    print("| side | seconds | tokens | tokens/s (each round) | peak MB above the model |\n|---|---|---|---|---|")
    peers = {"transformers, fp32": model}
    if options.peer_bf16:
        peers["transformers, bf16"] = copy.deepcopy(model).to(torch.bfloat16)
    best: dict[str, int] = {}
    for name, peer in peers.items():
        found = {size: Measured() for size in options.sizes}
        for size, into in found.items():
            measure(into, lambda peer=peer, size=size: theirs(peer, tokenizer, ends, rows, size, options.tokens))  # type: ignore[misc]
            print(f"| {name}, {size} at a time | {into.row()} |", flush=True)
        best[name] = max(found, key=lambda size: found[size].rate)

    def draw(half: bool, seed: int) -> int:
        policy.half = half and use_half(policy, lambda line: None)
        return ours(policy, messages, options.per_prompt, options.tokens, seed)

    sides: dict[str, Callable[[int], int]] = {
        "this studio": lambda seed: draw(True, seed),
        "this studio, fp32": lambda seed: draw(False, seed),
    }
    for name, peer in peers.items():
        sides[f"{name}, {best[name]} at a time"] = lambda seed, peer=peer, size=best[name]: theirs(  # type: ignore[misc]
            peer, tokenizer, ends, rows, size, options.tokens
        )
    result = {name: Measured() for name in sides}
    for turn in range(options.rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            measure(result[name], lambda name=name, turn=turn: sides[name](turn))  # type: ignore[misc]
    for name, into in result.items():
        print(f"| {name} | {into.row()} |")
    for name in list(sides)[2:]:
        ratios = [f"{result[own].rate / result[name].rate:.2f} ({own})" for own in list(sides)[:2]]
        print(f"\ntimes the tokens per second of {name}: {', '.join(ratios)}", flush=True)


def first_pair(model: str) -> None:
    """Print when the first pair of a generate run is in the pool, and how long its progress stood still at most."""
    with tempfile.TemporaryDirectory() as directory:
        db = Home(Path(directory)).open()
        try:
            seed_home(db)
            promote_policy(db, add_policy(db, model).id if model != STARTER_BASE else STARTER_BASE)
            watch_run(db, directory)
        finally:
            db.dispose()


def watch_run(db: Database, home: str) -> None:
    """Run the command a user types and look at what it tells."""
    command = [sys.executable, "-m", "studio.cli", "--home", home, "generate", "--limit", "50", "--seed", "1"]
    typed = time.time()
    first, still, moved, last, words = typed, 0.0, typed, 0.0, ""
    running = subprocess.Popen(command)
    while running.poll() is None:
        time.sleep(LOOK_SECONDS)
        run = next(iter(list_runs(db, limit=1)), None)
        if not count_matchups(db).open:
            first = time.time()
        if run is not None and run.progress != last:
            still, moved, last = max(still, time.time() - moved) if last else 0.0, time.time(), run.progress
            words = run.progress_text if "left" in run.progress_text else words
    over, run = time.time(), list_runs(db, limit=1)[0]
    began = run.started_at.timestamp() if run.started_at else typed
    print(
        f"first pair {first - typed:.1f} s after typing, {first - began:.1f} s after the run's start; all 50 after "
        f"{over - began:.1f} s; progress stood still for {still:.1f} s at most; it said: {words}\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=STARTER_BASE)
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--per-prompt", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=PEER_SIZES)
    parser.add_argument("--peer-bf16", action="store_true", help="measure the peer with weights in bf16 too")
    parser.add_argument("--skip-run", action="store_true", help="leave the generate run out")
    options = parser.parse_args()
    if not options.skip_run:
        first_pair(options.model)
    compare(options)


if __name__ == "__main__":
    main()
