"""A signal ends ``studio up`` at whatever moment of its life it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.ending import Ending
from tests.studio.running import ROOT, start, until
from training.home import STUDIO_LOCK, Home

ENDS_WITHIN = 40.0  # on a machine that is busy with other tests; a lost signal ends nothing at all


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"it went on: {output}")
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["import", "lock", "gradio", "line"])
def test_a_signal_during_the_start_is_heard(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    home = Home(tmp_path / "home").create()
    process = start(home, "--no-worker")
    if moment == "import":
        until(lambda: "typer" in loaded(process) or "pydantic" in loaded(process))
    elif moment == "lock":
        until(lambda: (home.path / STUDIO_LOCK).exists() and home.studio_holder() is not None)
    elif moment == "gradio":
        until(lambda: "/gradio/" in loaded(process) or "orjson" in loaded(process))
    else:
        assert process.stdout
        assert any("The studio is at" in line for line in process.stdout)
    os.kill(process.pid, number)
    status, output = ended(process)
    assert "Traceback" not in output
    expected = {0} if moment != "import" else {0, 1, 130, -signal.SIGTERM}
    assert status in expected, output
    assert home.studio_holder() is None


def loaded(process: subprocess.Popen[str]) -> str:
    """The libraries that a process has mapped by now."""
    try:
        return Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return ""


def test_a_start_with_a_worker_ends_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    process = start(home)
    assert process.stdout
    assert any("The studio is at" in line for line in process.stdout)
    os.kill(process.pid, signal.SIGTERM)
    status, output = ended(process)
    assert status == 0 and "Traceback" not in output
    until(lambda: home.worker_holder() is None)


def test_the_end_is_raised_once_and_the_server_then_told() -> None:
    class Server:
        should_exit = False

    before = signal.getsignal(signal.SIGTERM)
    server = Server()
    with pytest.raises(SystemExit) as ended, Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert ended.value.code == 0 and ending.asked
    signal.signal(signal.SIGTERM, before)
    ran: list[int] = []

    def run() -> None:
        ran.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

    with Ending() as ending:
        ending.serve(server, run)
        assert server.should_exit and ran == [1]
        ending.serve(server, lambda: ran.append(2))
    assert ran == [1]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)


def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from studio.ending import Ending\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "with Ending(longest=0.5):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0 and "what was saved is saved" in done.stderr
