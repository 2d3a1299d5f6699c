"""A copy of the ``training`` package with more in it, and processes that use the copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PackageCopy:
    """A directory with a copy of ``training``, and with the other packages as links."""

    path: Path

    @classmethod
    def make(cls, path: Path, files: Mapping[str, str]) -> PackageCopy:
        """Copy the package to ``path`` and write the files, by their names in the repository, into the copy."""
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "training", path / "training", ignore=ignored)
        for name in ("feedback", "studio", "assets"):
            (path / name).symlink_to(ROOT / name)
        for name, text in files.items():
            (path / name).write_text(text)
        return cls(path)

    def replace(self, name: str, old: str, new: str) -> None:
        """Replace a text that occurs once in a file of the copy."""
        text = (self.path / name).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        (self.path / name).write_text(text.replace(old, new))

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a process that imports the copy and is told nothing else of a studio."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
        return own | {"PYTHONPATH": str(self.path), "COLUMNS": "200"} | variables

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
