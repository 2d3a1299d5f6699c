"""A signal ends ``studio up`` at whatever moment of its life it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the watchdog of an end that was asked for ends its process for certain."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)


def test_the_end_before_the_server_runs_unwinds_what_was_begun() -> None:
    code = (
        "import os, signal, time\n"
        "from studio.ending import Ending\n"
        "try:\n"
        "    with Ending() as ending:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "except SystemExit as end:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(end.code, ending.asked)\n"
    )
    done = run_code(code)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "True"]), done.stderr


def test_the_end_while_the_server_runs_is_told_to_the_server() -> None:
    code = (
        "import os, signal, time\n"
        "from types import SimpleNamespace\n"
        "from studio.ending import Ending\n"
        "server = SimpleNamespace(should_exit=False)\n"
        "def run():\n"
        "    print('ran')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.1)\n"
        "with Ending() as ending:\n"
        "    ending.serve(server, run)\n"
        "    print(server.should_exit)\n"
        "    ending.serve(server, run)\n"
    )
    done = run_code(code)
    assert (done.returncode, done.stdout.split()) == (0, ["ran", "True"]), done.stderr


def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from studio.ending import Ending\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "with Ending(longest=0.5):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = run_code(code)
    assert done.returncode == 0 and "what was saved is saved" in done.stderr
