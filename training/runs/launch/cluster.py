"""Which Ray cluster runs are submitted to, and what each of them asks of it: options of the command, or variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar
from urllib.parse import urlsplit

from feedback.errors import InvalidInput
from training.home import Home
from training.runs.launch import Launcher
from training.runs.launch.target import Option, Target

ADDRESS_VARIABLE = "STUDIO_RAY_ADDRESS"
CPUS_VARIABLE = "STUDIO_RAY_CPUS"
GPUS_VARIABLE = "STUDIO_RAY_GPUS"
AT_ONCE_VARIABLE = "STUDIO_RAY_AT_ONCE"
PYTHON_VARIABLE = "STUDIO_RAY_PYTHON"

DEFAULT_CPUS = 1.0
DEFAULT_GPUS = 0.0
DEFAULT_AT_ONCE = 4
MAX_AT_ONCE = 1000

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class RayCluster(Target):
    """A cluster by the address of its dashboard, what one run reserves there, and how many may be in its hands.

    ``python`` is the interpreter on the cluster's machines that has the studio installed.
    """

    NAME: ClassVar[str] = "ray"
    NOUN: ClassVar[str] = "a Ray cluster"
    EXAMPLE: ClassVar[str] = "--ray http://HEAD:8265"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "--ray",
            ADDRESS_VARIABLE,
            str,
            "URL",
            f"Execute runs on the Ray cluster with this dashboard; else ${ADDRESS_VARIABLE}.",
        ),
        Option(
            "--ray-cpus",
            CPUS_VARIABLE,
            float,
            "N",
            f"CPUs a run reserves, and computes with: 1 unless ${CPUS_VARIABLE} says otherwise.",
        ),
        Option(
            "--ray-gpus",
            GPUS_VARIABLE,
            float,
            "N",
            f"GPUs a run reserves: none unless ${GPUS_VARIABLE} says otherwise.",
        ),
        Option(
            "--ray-python",
            PYTHON_VARIABLE,
            str,
            "PATH",
            "Python with the studio on the cluster's machines; else the same.",
        ),
        Option(
            "--at-once",
            AT_ONCE_VARIABLE,
            int,
            "N",
            f"How many runs a cluster is given at a time; else ${AT_ONCE_VARIABLE}.",
        ),
    )

    address: str
    cpus: float = DEFAULT_CPUS
    gpus: float = DEFAULT_GPUS
    at_once: int = DEFAULT_AT_ONCE
    python: str = sys.executable

    def __post_init__(self) -> None:
        _check_address(self.address)
        if not 0 < self.cpus < float("inf"):
            raise InvalidInput(f"{self.cpus:g} CPUs cannot be asked of Ray for a run; valid: a number above 0.")
        if not 0 <= self.gpus < float("inf") or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise InvalidInput(
                f"{self.gpus:g} GPUs cannot be asked of Ray for a run; valid: 0, a share below 1, or a whole number."
            )
        if not 1 <= self.at_once <= MAX_AT_ONCE:
            raise InvalidInput(f"{self.at_once} runs at once are none to work with; valid: 1 to {MAX_AT_ONCE}.")

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> RayCluster | None:
        """The cluster that the environment names, if it names one."""
        address = variables.get(ADDRESS_VARIABLE)
        if not address:
            return None
        return cls(
            address,
            cpus=_read(variables, CPUS_VARIABLE, DEFAULT_CPUS),
            gpus=_read(variables, GPUS_VARIABLE, DEFAULT_GPUS),
            at_once=_read(variables, AT_ONCE_VARIABLE, DEFAULT_AT_ONCE),
            python=variables.get(PYTHON_VARIABLE) or sys.executable,
        )

    def environment(self) -> dict[str, str]:
        """The variables by which another process finds this very cluster."""
        return {
            ADDRESS_VARIABLE: self.address,
            CPUS_VARIABLE: f"{self.cpus:g}",
            GPUS_VARIABLE: f"{self.gpus:g}",
            AT_ONCE_VARIABLE: str(self.at_once),
            PYTHON_VARIABLE: self.python,
        }

    @classmethod
    def words_for(cls, address: str) -> str:
        """The cluster at an address, in words."""
        return f"the Ray cluster at {address}"

    @property
    def at(self) -> str:
        """The address of the dashboard."""
        return self.address

    def look(self) -> str:
        """Ask the cluster for its version; ClusterAway where it does not answer."""
        from training.runs.launch.ray_jobs import RayJobs  # brings httpx along, as the launcher does

        jobs = RayJobs(self.address)
        try:
            return f"Ray {jobs.version()} at {self.address}, {self.wanted} for a run"
        finally:
            jobs.close()

    def launcher(self, home: Home, say: Callable[[str], None]) -> Launcher:
        """What hands the runs of a home to the cluster."""
        from training.runs.launch.ray import (
            RayLauncher,
        )  # brings httpx along, which a command that opens has no use for

        return RayLauncher(home, self, say=say)

    @property
    def head(self) -> str:
        """The machine that answers for the cluster."""
        return urlsplit(self.address).hostname or ""

    @property
    def wanted(self) -> str:
        """What one run asks for, in words."""
        return f"{self.cpus:g} CPU" + (f", {self.gpus:g} GPU" if self.gpus else "")

    def check(self, home: Home) -> RayCluster:
        """Refuse a home whose database cannot be reached from the cluster's machines."""
        if not home.database_url.startswith("postgres"):
            raise InvalidInput(
                f"Runs on a Ray cluster ({self.address}) need PostgreSQL, for a SQLite file must not be shared between "
                "machines: give --database-url postgresql://USER@HOST/NAME (or $STUDIO_DATABASE_URL), or leave --ray "
                f"and ${ADDRESS_VARIABLE} out."
            )
        return self


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        valid = valid and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:  # a port that is no number
        valid = False
    if not valid:
        raise InvalidInput(
            f"{address!r} is not the address of a Ray dashboard; valid: http://HEAD:8265, as `ray start --head` prints "
            f"it. Name it with --ray or ${ADDRESS_VARIABLE}."
        )


def _read(variables: Mapping[str, str], name: str, default: Number) -> Number:
    """The number of a variable, of the kind that its default is of."""
    given = variables.get(name)
    kind = type(default)
    try:
        return kind(given) if given else default
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise InvalidInput(f"${name}={given!r} is not {noun}; set it to one, or unset it for {default:g}.") from None
