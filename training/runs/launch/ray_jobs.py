"""Ray's Jobs API, as much of it as a launcher needs, over plain HTTP: no Ray is installed beside the studio."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from feedback.errors import StudioError
from training.http_answers import fetch_now

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
TOKEN_PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
TOKEN_FILE = Path("~/.ray/auth_token")
# The head itself waits up to ten seconds for the agent that takes a job; who asks again finds the job there.
TIMEOUT = httpx.Timeout(8.0, connect=5.0)
SECONDS = 30.0  # from the request to the end of the answer
MOST_BYTES = 64 * 2**20  # of one answer: the log of a job comes whole
WORDS = 400
# What Ray writes into a job's log by itself.
RAYS_OWN_LINES = ("Running entrypoint for job", "Runtime env is setting up.")


class ClusterAway(StudioError):
    """The cluster takes no jobs at the moment: it is not there, not well, or lets us not in."""


class JobRefused(StudioError):
    """The cluster will not take this job, now or later."""


@dataclass(frozen=True)
class Job:
    """What Ray says of one job."""

    status: str
    message: str
    error_type: str
    exit_code: int | None

    @property
    def waits(self) -> bool:
        """Not begun yet: most likely there is no room."""
        return self.status == "PENDING"

    @property
    def is_over(self) -> bool:
        """Ended, in whatever way."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def waited_too_long(self) -> bool:
        """Given up by Ray, which lets a job wait for a quarter of an hour, though nothing is wrong with it."""
        return self.error_type == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


class RayJobs:
    """The jobs of the cluster whose dashboard is at ``address``."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        # No proxy or netrc of the environment: a cluster's head is in one's own network, and its token is for it alone.
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    def version(self) -> str:
        """The cluster's version of Ray; ClusterAway when it does not answer, or not to us."""
        return str(_json(self._ask("GET", "/api/version", valid=(200,))).get("ray_version", "of no known version"))

    def submit(
        self, submission_id: str, entrypoint: str, *, cpus: float, gpus: float, metadata: dict[str, str]
    ) -> None:
        """Hand a job over. One that is there under this id already was handed over before, and that is well."""
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "entrypoint_num_cpus": cpus,
            "entrypoint_num_gpus": gpus,
            "metadata": metadata,
        }
        try:
            self._ask("POST", "/api/jobs/", body=body, valid=(200,))
        except (ClusterAway, JobRefused):
            # Ray answers a known id with an error like any other, so the job itself is asked for.
            with contextlib.suppress(ClusterAway):
                if self.look(submission_id) is not None:
                    return
            raise

    def look(self, submission_id: str) -> Job | None:
        """How a job stands; None when Ray knows of none, or no longer."""
        answer = self._ask("GET", f"/api/jobs/{submission_id}", valid=(200, 404))
        if answer.status_code == 404:
            return None
        said = _json(answer)
        exit_code = said.get("driver_exit_code")
        return Job(
            status=str(said.get("status")),
            message=str(said.get("message") or ""),
            error_type=str(said.get("error_type") or ""),
            exit_code=exit_code if isinstance(exit_code, int) else None,
        )

    def last_words(self, submission_id: str, job: Job) -> str:
        """Why a job ended, in a line: the last one it said, else what Ray says of it."""
        if job.exit_code is None:
            return _first_line(job.message) or f"Ray says {job.status}"
        said = job.message
        with contextlib.suppress(ClusterAway):
            answer = self._ask("GET", f"/api/jobs/{submission_id}/logs", valid=(200,))
            said = str(_json(answer).get("logs") or said)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        own = [line for line in lines if not any(words in line for words in RAYS_OWN_LINES)]
        return f"exit code {job.exit_code}" + (f", {own[-1][:WORDS]}" if own else ", without a word")

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a job: SIGTERM, then SIGKILL; one that waits heeds it when its turn comes."""
        self._ask("POST", f"/api/jobs/{submission_id}/stop", valid=(200, 404))

    def forget(self, submission_id: str) -> None:
        """Take a job that is over out of Ray's list, so that its id is free again."""
        self._ask("DELETE", f"/api/jobs/{submission_id}", valid=(200, 404))

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _ask(self, method: str, path: str, *, valid: tuple[int, ...], body: Any = None) -> httpx.Response:
        token = read_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = fetch_now(
                self._client, method, self.address + path, json=body, headers=headers, seconds=SECONDS, most=MOST_BYTES
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClusterAway(
                f"The Ray cluster at {self.address} cannot be reached ({str(error) or type(error).__name__}); see that "
                "it runs (`ray status`) and that its dashboard may be reached from here."
            ) from None
        if answer.status_code in valid:
            return answer
        raise self._trouble(answer, told_token=bool(token))

    def _trouble(self, answer: httpx.Response, *, told_token: bool) -> StudioError:
        status = answer.status_code
        if status in (401, 403):
            which = "refuses the token it was given" if told_token else "wants a token"
            return ClusterAway(
                f"The Ray cluster at {self.address} {which} (HTTP {status}): set ${TOKEN_VARIABLE} to the cluster's, "
                f"or put it into the file that ${TOKEN_PATH_VARIABLE} names, or into {TOKEN_FILE}."
            )
        if 300 <= status < 400:
            return ClusterAway(
                f"{self.address} sends elsewhere (HTTP {status}), where no token is taken: name the dashboard itself."
            )
        said = _last_line(answer.text) or "nothing"
        if status >= 500:
            return ClusterAway(f"The Ray cluster at {self.address} is not well (HTTP {status}): {said}")
        return JobRefused(f"the Ray cluster at {self.address} refuses the job (HTTP {status}): {said}")


def read_token() -> str:
    """The cluster's token, where Ray's own tools look for it too; empty when there is none."""
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given:
        return given
    path = Path(os.environ.get(TOKEN_PATH_VARIABLE) or TOKEN_FILE)
    with contextlib.suppress(OSError, RuntimeError, UnicodeDecodeError):  # RuntimeError: an account without a home
        return path.expanduser().read_text(encoding="utf-8").strip()
    return ""


def _json(answer: httpx.Response) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        said = answer.json()
        if isinstance(said, dict):
            return said
    raise ClusterAway(f"{answer.url} does not answer as Ray's dashboard does; name http://HEAD:8265 with --ray.")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:WORDS]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\t")]
    return lines[-1][:WORDS] if lines else ""
