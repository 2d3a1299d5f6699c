"""A signal ends ``studio up`` at whatever moment of its life it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

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


@pytest.mark.slow
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


@pytest.mark.slow
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
    """Run code around an Ending in a process of its own, which its watchdog may end without harm to other tests."""
    imports = "import os, signal, threading, time\nfrom studio.web.server.shutdown import Ending\n"
    command = [sys.executable, "-c", imports + dedent(code)]
    return subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)


def test_a_signal_before_the_server_runs_unwinds_what_was_begun() -> None:
    done = run_code("""
        try:
            with Ending() as ending:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        except SystemExit as end:
            os.kill(os.getpid(), signal.SIGTERM)
            print(end.code, ending.asked)
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "True"]), done.stderr


def test_a_signal_while_the_server_runs_asks_it_to_stop() -> None:
    done = run_code("""
        class Server:
            should_exit = False

        def run():
            print("ran")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

        with Ending() as ending:
            ending.serve(Server, run)
            print(Server.should_exit)
            ending.serve(Server, run)
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["ran", "True"]), done.stderr


def test_what_does_not_end_is_ended() -> None:
    done = run_code("""
        threading.Thread(target=time.sleep, args=(600,)).start()
        with Ending(longest=0.5):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    """)
    assert done.returncode == 0 and "what was saved is saved" in done.stderr
