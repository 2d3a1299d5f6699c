"""Import the heavy libraries before a run needs them, while its process waits for the run; limit what they log."""

from __future__ import annotations

import array
import contextlib
import fcntl
import importlib
import logging
import os
import select
import sys
import termios
import threading
import warnings
from collections.abc import Callable

HEAVY_MODULES = ("torch", "transformers", "peft", "datasets", "accelerate", "trl")
# The trainers are behind lazy attributes: asking for them is what imports them.
HEAVY_CLASSES = {
    "transformers": ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "LlamaForSequenceClassification"),
    "peft": ("LoraConfig", "PeftModel"),
    "trl": ("DPOTrainer", "RewardTrainer"),
}


def preload(while_waiting: Callable[[], None] | None = None) -> str:
    """Import the heavy libraries at low priority; returns the complaint if one cannot be imported.

    ``while_waiting`` is called several times a second until then.

    A thread does it because Linux gives each thread its own priority, and a lowered one cannot be raised
    again: the main thread, and all that torch starts from it, must keep theirs.
    """
    complaints: list[str] = []

    def import_all() -> None:
        with contextlib.suppress(OSError):
            if sys.platform == "linux":
                os.setpriority(os.PRIO_PROCESS, 0, 10)
        try:
            for name in HEAVY_MODULES:
                module = importlib.import_module(name)
                for attribute in HEAVY_CLASSES.get(name, ()):
                    getattr(module, attribute)
        except Exception as error:  # the run will meet the same error, and report it as its own
            complaints.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=import_all, name="preload")
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if while_waiting is not None:
            while_waiting()
    return "; ".join(complaints)


def leave_when_alone() -> None:
    """End this process when nobody can give it a run any more: its worker is gone and has sent nothing.

    The imports would go on for ten seconds otherwise, and workers that are killed in a row leave one such process
    each, of half a gigabyte. Nothing is read here: ``training.execute.stand_by`` reads an id that
    was sent.
    """
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], 0)
    if ready and _waiting_bytes(sys.stdin.fileno()) == 0:
        os._exit(0)


def _waiting_bytes(descriptor: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MB for its large tensors; call it before torch is imported.

    A training step touches gigabytes of activations. In pages of 4 KB, element-wise operations on a virtual machine
    took five times as long, and a DPO step of a 135 M model a sixth longer. Only where Linux leaves the choice to
    programs ("madvise"), which is usual.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def quiet_libraries() -> None:
    """Keep what libraries say to their own developers out of the run's log: it is for the person who trains."""
    warnings.simplefilter("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    for library in (*HEAVY_MODULES, "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
