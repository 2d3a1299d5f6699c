"""A head of a Ray cluster that speaks the Jobs API: jobs wait for room, become processes, and are remembered."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BODY = dict[str, Any]


@dataclass
class PretendJob:
    request: BODY
    status: str = "PENDING"
    message: str = "Job has not started yet."
    error_type: str | None = None
    exit_code: int | None = None
    stop_asked: bool = False
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="ray-job-")[1]))


class RayHead:
    """One machine with ``room`` for so many jobs. Knobs make it full, deaf, strange or choosy."""

    def __init__(self, room: int = 10) -> None:
        self.room = room
        self.token = ""
        self.jobs: dict[str, PretendJob] = {}
        self.heard: list[tuple[str, str, str]] = []
        self.submitted = 0
        self.fails_with = 0
        self.loses_answers = False
        self.environment = dict(os.environ)
        self._lock = threading.RLock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer, on the port of before if there was one."""
        head = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                status, said = head.answer(self.command, self.path, body, self.headers.get("Authorization") or "")
                if said is None:
                    self.close_connection = True
                    return
                content = (json.dumps(said) if isinstance(said, dict) else said).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop_answering(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        self.stop_answering()
        for job in self.jobs.values():
            if job.process is not None and job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()
            job.log.unlink(missing_ok=True)

    def give_up(self, job_id: str) -> None:
        """What Ray does to a job that waits for more than a quarter of an hour."""
        with self._lock:
            job = self.jobs[job_id]
            job.status, job.error_type = "FAILED", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
            job.message = "Job supervisor actor failed to start within 900.0 seconds."

    def answer(self, method: str, path: str, body: str, authorization: str) -> tuple[int, BODY | str | None]:
        with self._lock:
            self.heard.append((method, path, body))
            if self.token and authorization != f"Bearer {self.token}":
                return (403 if authorization else 401), "Unauthorized"
            if self.fails_with:
                return self.fails_with, "Traceback\nOSError: no agent"
            if path == "/api/version":
                return 200, {"version": "4", "ray_version": "2.60.0"}
            self._turn()
            if (method, path) == ("POST", "/api/jobs/"):
                return self._submit(json.loads(body))
            found = re.fullmatch(r"/api/jobs/([^/]+)(/logs|/stop)?", path)
            job = self.jobs.get(found.group(1)) if found else None
            if found is None or job is None:
                return 404, f"Job {path} does not exist"
            if method == "DELETE":
                if job.status not in ("FAILED", "STOPPED", "SUCCEEDED"):
                    return 500, "RuntimeError: it is in a non-terminal state"
                del self.jobs[found.group(1)]
                return 200, {"deleted": True}
            if found.group(2) == "/logs":
                return 200, {"logs": job.log.read_text()}
            if found.group(2) == "/stop":
                return self._stop(job)
            said = {"submission_id": found.group(1), "status": job.status, "message": job.message}
            return 200, {**said, "error_type": job.error_type, "driver_exit_code": job.exit_code}

    def _submit(self, request: BODY) -> tuple[int, BODY | str | None]:
        if request["submission_id"] in self.jobs:
            return 500, f"ValueError: Job with submission_id {request['submission_id']} already exists.\n."
        self.submitted += 1
        self.jobs[request["submission_id"]] = PretendJob(request)
        self._turn()
        return 200, None if self.loses_answers else {"submission_id": request["submission_id"]}

    def _stop(self, job: PretendJob) -> tuple[int, BODY]:
        """As Ray: a job that waits only hears of it once it has begun."""
        job.stop_asked = True
        if job.process is not None and job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGTERM)
            threading.Timer(1.0, self._kill, [job.process]).start()
        return 200, {"stopped": True}

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def _turn(self) -> None:
        for job in self.jobs.values():
            if job.status == "RUNNING" and job.process is not None and job.process.poll() is not None:
                self._end(job, job.process.returncode)
        for job in self.jobs.values():
            busy = sum(other.status == "RUNNING" for other in self.jobs.values())
            if job.status == "PENDING" and busy < self.room:
                self._begin(job)

    def _begin(self, job: PretendJob) -> None:
        if job.stop_asked:
            job.status, job.message = "STOPPED", "Job was intentionally stopped."
            return
        with job.log.open("w") as log:
            log.write("2026-11-27 INFO job_manager.py:581 -- Runtime env is setting up.\n")
            log.flush()
            job.process = subprocess.Popen(
                job.request["entrypoint"],
                shell=True,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        job.status, job.message = "RUNNING", "Job is currently running."

    def _end(self, job: PretendJob, code: int) -> None:
        with job.log.open("a") as log:
            log.write(f"Running entrypoint for job: {job.request['entrypoint']}\n")
        job.exit_code = code
        if job.stop_asked:
            job.status, job.message, job.exit_code = "STOPPED", "Job was intentionally stopped.", None
        elif code == 0:
            job.status, job.message = "SUCCEEDED", "Job finished successfully."
        else:
            job.status, job.error_type = "FAILED", "JOB_ENTRYPOINT_COMMAND_ERROR"
            job.message = f"Job entrypoint command failed with exit code {code}, last available logs:\n"
            job.message += job.log.read_text()
