"""Target: a place where runs are sent instead of being processes of this machine, as options or variables name it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from training.home import Home
from training.runs.launch import Launcher


@dataclass(frozen=True)
class Option:
    """One option of the command, and the environment variable that is read where the option is left out."""

    flag: str
    variable: str
    type: type[str] | type[int] | type[float]
    metavar: str
    help: str

    @property
    def parameter(self) -> str:
        """The option as the name of a parameter: ``--ray-cpus`` is ``ray_cpus``."""
        return self.flag.removeprefix("--").replace("-", "_")


class Target(ABC):
    """A place for runs: its options, how it is built from them, and the launcher that sends runs there.

    The command, the worker and the doctor read only this. The first of ``OPTIONS`` names the place; without it, or its
    variable, runs are not sent there and the other options are refused.
    """

    NAME: ClassVar[str]
    """What the worker's lock and the doctor's table call the place."""

    NOUN: ClassVar[str]
    """The kind of place in a sentence: ``a Ray cluster``."""

    EXAMPLE: ClassVar[str]
    """The naming option with a value, for a message that asks for it."""

    OPTIONS: ClassVar[tuple[Option, ...]]

    @classmethod
    @abstractmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Self | None:
        """Return the place that the variables of ``OPTIONS`` name, or None where they name none."""

    @classmethod
    @abstractmethod
    def words_for(cls, address: str) -> str:
        """Return the place at an address in words: ``the Ray cluster at http://head:8265``."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables by which another process finds this very place."""

    @abstractmethod
    def check(self, home: Home) -> Self:
        """Return the place itself; raise InvalidInput for a home whose runs cannot be sent there."""

    @abstractmethod
    def look(self) -> str:
        """Reach the place and return what answers, in words; raise StudioError where nothing does."""

    @abstractmethod
    def launcher(self, home: Home, say: Callable[[str], None]) -> Launcher:
        """Return what launches the runs of a home there; ``say`` writes a line to the worker's log."""

    @property
    @abstractmethod
    def at(self) -> str:
        """The address, as the naming option gives it."""

    @property
    def words(self) -> str:
        """The place in words."""
        return self.words_for(self.at)
