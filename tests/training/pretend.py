"""A run's process whose method is pretended: ``python pretend.py BEHAVIOUR --home DIR --run ID``.

Everything but the method is the real ``training.execute``; ``generate`` does what BEHAVIOUR says. So the queue is
tested with real processes that take no time to load.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from typing import Any

from feedback.errors import CheckpointError, NotEnoughData
from training import execute, methods, preloading
from training.checkpoints.saving import disk_full
from training.reporting.reporter import RunContext
from training.settings.generate import GenerateSettings


def quick(context: RunContext) -> dict[str, Any]:
    context.progress.metrics(1, loss=0.5)
    context.progress.report(0.5, "half way")
    context.progress.log("hello from the run")
    return {"done": context.run.attempt}


def steps(context: RunContext) -> dict[str, Any]:
    for step in range(2000):
        context.progress.check()
        context.progress.metrics(step, loss=1.0 / (step + 1))
        context.progress.report(step / 2000, f"step {step}")
        time.sleep(0.02)
    return {"done": 1}


def deaf(context: RunContext) -> dict[str, Any]:
    """Heeds neither the flag nor SIGTERM, and has a child as deaf as itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    )
    (context.run_dir / "child").write_text(str(child.pid))
    while True:
        time.sleep(0.05)


def crash(context: RunContext) -> dict[str, Any]:
    raise ValueError("the loss went up\nand more")


def starve(context: RunContext) -> dict[str, Any]:
    raise NotEnoughData("There are 0 prompts and 1 is needed.")


def memory(context: RunContext) -> dict[str, Any]:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


def wander(context: RunContext) -> dict[str, Any]:
    return {"path": object()}


def diverge(context: RunContext) -> dict[str, Any]:
    from training.trainer.callbacks import Diverged

    raise Diverged("The loss at step 7 is nan: the training diverged.")


def fill_up(context: RunContext) -> dict[str, Any]:
    """Its disk has no room for a state to resume from."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        (context.run_dir / "state").write_bytes(b"0" * 8192)
    except OSError as error:
        raise disk_full(context.run_dir, "The state to resume from") from error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return {}


def damage(context: RunContext) -> dict[str, Any]:
    raise CheckpointError("The checkpoint x is damaged: a file is not what was saved.")


NAMED = (quick, steps, deaf, crash, starve, memory, wander, diverge, fill_up, damage)
BEHAVIOURS = {each.__name__: each for each in NAMED}


class Pretended:
    """Stands where a Method stands in the table."""

    settings = GenerateSettings
    kind = "job"

    def __init__(self, name: str) -> None:
        self.run = BEHAVIOURS[name]


if __name__ == "__main__":
    methods.METHODS["generate"] = Pretended(sys.argv[1])  # type: ignore[index]
    preloading.HEAVY_MODULES = ("json",)
    sys.exit(execute.main(sys.argv[2:]))
