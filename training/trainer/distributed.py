"""Several processes of one machine that train one run together, a GPU for each: data parallelism.

The run's own process is rank 0 and leads: it alone tells the world, keeps states and saves. It starts the others, which
do the same method on the same rows with a reporter that says nothing, and leave when the last step is taken. What is
distributed is accelerate's: its sampler gives each rank its share of every batch, torch's DistributedDataParallel makes
the gradients one. The ranks find each other by a file in the run's directory; ``torchrun``, which ``accelerate launch``
calls, would listen on every address of the machine for that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, RunEnded, RunFailed, StudioError
from training.home import Home
from training.reporting.reporter import LocalProgress

# As the leader was started: with ``-P``, modules of the folder it happens to be in are not taken for the studio's.
FOLLOW = (sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "training.execute")
MEETING, LEADER = "STUDIO_RANKS_MEET", "STUDIO_RANKS_LEADER"
LEAVE_SECONDS = 60.0  # a rank that has taken the last step is gone within this time, or was stuck
LOOK_SECONDS = 0.5
# A rank that died makes the leader's next exchange fail by itself; where it does not, its run is ended for it.
DEATH_SECONDS = 15.0


class Followed(RunEnded):
    """Thrown in a rank that does not lead, once the last step is taken: the leader does the rest."""


class Follower(LocalProgress):
    """The reporter of a rank that does not lead: it tells nobody, and no look at replies is its to take."""

    def log(self, line: str) -> None:
        """The leader says the same."""


def rank() -> int:
    """This process's number among those that share the run; the leader is 0."""
    return int(os.environ.get("RANK", "0"))


def leave_unless_leading() -> None:
    """End a rank that does not lead, after its last step."""
    if rank() > 0:
        raise Followed("the last step is taken")


def follow_leader() -> None:
    """For a rank that does not lead: end when the leader is gone, so that none is left over."""
    leader = os.environ[LEADER]

    def watch() -> None:
        while str(os.getppid()) == leader:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="leader-watch", daemon=True).start()


@contextmanager
def sharing(home: Home, run_id: str, processes: int, on_death: Callable[[str], None]) -> Iterator[None]:
    """For the leader: the other ranks are at work for the time of the block. One process needs none of this.

    ``on_death`` is told, in a sentence, of a rank that died and left the leader waiting for it for ever.
    InvalidInput where the machine has fewer GPUs, or without any fewer cores.
    """
    if processes == 1:
        yield
        return
    _check_devices(processes)
    meeting = home.run_dir(run_id) / ".ranks"
    meeting.unlink(missing_ok=True)
    own = dict(os.environ)
    os.environ.update(_environment(0, processes, meeting))
    followers = [_start(home, run_id, number, processes, meeting) for number in range(1, processes)]
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(followers, over, on_death), name="rank-watch", daemon=True)
    watch.start()
    try:
        join(meeting)
        yield
    except Exception as error:
        if not isinstance(error, StudioError) and (words := _death(followers, wait=True)):
            raise RunFailed(words) from error  # what the leader met is only that nobody answers
        raise
    finally:
        over.set()
        watch.join()
        _dismiss(followers)
        meeting.unlink(missing_ok=True)
        os.environ.clear()
        os.environ.update(own)


def join(meeting: Path) -> None:
    """Meet the other ranks. On a GPU this rank's own is the one it computes on from here on."""
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(rank())
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{meeting}",
        rank=rank(),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def meeting_place() -> Path:
    """Where the leader said that the ranks meet."""
    return Path(os.environ[MEETING])


def _environment(number: int, processes: int, meeting: Path) -> dict[str, str]:
    """What torch, accelerate and this module read; all that the ranks say to each other stays on this machine."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        MEETING: str(meeting),
        LEADER: str(os.getpid()),
        "GLOO_SOCKET_IFNAME": _loopback(),
        "NCCL_SOCKET_IFNAME": _loopback(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }


def _loopback() -> str:
    return "lo0" if sys.platform == "darwin" else "lo"


def _start(home: Home, run_id: str, number: int, processes: int, meeting: Path) -> subprocess.Popen[bytes]:
    """In the leader's own session, so that whoever ends the run ends all of it."""
    return subprocess.Popen(
        [*FOLLOW, "--home", str(home.path), "--run", run_id, "--follow"],
        env={**home.environment(), **_environment(number, processes, meeting)},
        stdin=subprocess.DEVNULL,
    )


def _watch(followers: list[subprocess.Popen[bytes]], over: threading.Event, on_death: Callable[[str], None]) -> None:
    while not over.wait(LOOK_SECONDS):
        words = _death(followers)
        if words and not over.wait(DEATH_SECONDS):
            on_death(words)
            return


def _death(followers: list[subprocess.Popen[bytes]], *, wait: bool = False) -> str:
    """A sentence on the first rank that ended badly; empty while none did. ``wait`` gives a dying one a moment."""
    for number, process in enumerate(followers, 2):
        if wait:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
        if process.poll() not in (None, 0):
            return (
                f"Process {number} of {len(followers) + 1} ended with status {process.returncode}, perhaps for want of "
                "memory; the log has its last words."
            )
    return ""


def _dismiss(followers: list[subprocess.Popen[bytes]]) -> None:
    """Let those that have taken the last step leave by themselves; end the others."""
    import torch

    failed = sys.exc_info()[0] is not None
    if not failed and torch.distributed.is_initialized():  # after a failure it may wait for somebody who is gone
        torch.distributed.destroy_process_group()
    deadline = time.monotonic() + (0.0 if failed else LEAVE_SECONDS)
    for process in followers:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check_devices(processes: int) -> None:
    import torch

    if torch.cuda.is_available():
        there, noun = torch.cuda.device_count(), "GPU"
    else:
        there, noun = os.cpu_count() or 1, "core"
    if processes > there:
        raise InvalidInput(
            f"processes={processes} needs as many {noun}s, and this machine has {there}; lower processes."
        )


def follower_settings(settings: Any) -> Any:
    """The settings as a rank that does not lead is to read them: no tracker, no sample replies."""
    return settings.model_copy(update={"report_to": "none", "sample_every": 0})
