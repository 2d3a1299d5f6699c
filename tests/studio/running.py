"""A real ``studio up`` in a process of its own, for what cannot be seen from inside one interpreter."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from training.home import Home

ROOT = Path(__file__).parents[2]
_AT = re.compile(r"at (http://\S+) ")


@dataclass
class Running:
    """One served home: its address, its process, what it has said so far, and the address as it was printed."""

    url: str
    process: subprocess.Popen[str]
    said: list[str]
    printed: str

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def start(home: Home, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The command, started; ``before`` is what it is run by."""
    command = [*before, sys.executable, "-m", "studio.cli", "--home", str(home.path), "up", "--port", "0", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@contextlib.contextmanager
def running(home: Home, *options: str) -> Iterator[Running]:
    """A studio that answers, without a worker; ended with the block."""
    process = start(home, "--no-worker", *options)
    assert process.stdout
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := _AT.search(line):
            break
    else:
        raise AssertionError(f"the studio did not start: {''.join(said)}")
    studio = Running(found.group(1).partition("/?")[0], process, said, found.group(1))
    threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True).start()
    until(lambda: _answers(studio.url))
    try:
        yield studio
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.05)


@dataclass
class Pulse:
    """The longest time in seconds that ``/api/health`` took to answer."""

    longest: float = 0.0


@contextlib.contextmanager
def watched(url: str) -> Iterator[Pulse]:
    """Asks ``/api/health`` again and again during the block."""
    pulse, over = Pulse(), threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=120) as http:
            while not over.wait(0.02):
                begun = time.monotonic()
                assert http.get(f"{url}/api/health").status_code == 200
                pulse.longest = max(pulse.longest, time.monotonic() - begun)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield pulse
    finally:
        over.set()
        thread.join()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
