"""Is everything here that a studio needs? Each check answers with what it saw, and the remedy when it is wrong.

To look changes nothing: no home or database is created, and none is migrated.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psutil

from feedback.database.engine import Database
from feedback.database.health import check_integrity, check_references, schema_version
from feedback.database.stored_values import check_values
from feedback.errors import DatabaseDamaged, InvalidInput, StudioError
from feedback.migrations import newest_revision
from feedback.store.content.prompts import count_prompts
from feedback.store.models.policies import get_champion, list_policies
from feedback.store.models.runs import list_runs
from feedback.types import RunState, now
from training.bundled import STARTER_DIR
from training.checkpoints.registration import is_model_directory
from training.home import Home
from training.operations.rebase import missing_bases, missing_in_words, remedy_for, unfetched_bases
from training.runs.launch.registry import TARGETS, words_in_lock
from training.runs.launch.target import Target
from training.runs.lifecycle import LAUNCH_SECONDS

OLDEST_PYTHON = (3, 11)
PACKAGES = ("torch", "transformers", "trl", "peft", "gradio", "sqlmodel")
MIN_DISK_BYTES = 2 * 1024**3
_RESTORE = "Stop the studio and restore a backup of the database."
_NOT_READ = "not looked at: there is no database of this release yet"
FREE_SPACE = "Free some space: 2 GiB are needed."
MIN_MEMORY_BYTES = 2 * 1024**3
# A heartbeat is written every second; so long a silence means that the process hangs or the disk does.
SILENT_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` is what to do when it is not ``ok``."""

    name: str
    ok: bool
    seen: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as plain JSON."""
        return asdict(self)


def examine(home: Home, variables: Mapping[str, str] = os.environ) -> list[Finding]:
    """Every check in order; one that breaks is a finding like any other. A target is looked at where one is named."""
    checks = dict(CHECKS)
    for kind in TARGETS:
        if variables.get(kind.OPTIONS[0].variable):
            checks[kind.NAME] = partial(_target, kind=kind, variables=variables)
    findings = []
    for name, check in checks.items():
        try:
            findings.append(check(home))
        except StudioError as error:
            remedy = error.remedy if isinstance(error, DatabaseDamaged) else str(error)
            findings.append(Finding(name, False, str(error), remedy))
        except OSError as error:
            remedy = FREE_SPACE if error.errno == errno.ENOSPC else "See that the home can be read and written."
            findings.append(Finding(name, False, str(error), remedy))
        except Exception as error:
            findings.append(Finding(name, False, f"{type(error).__name__}: {error}", "Report this as a bug."))
    return findings


def _python(home: Home) -> Finding:
    seen = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", sys.version_info >= OLDEST_PYTHON, seen, f"Install Python {oldest} or newer.")


def _packages(home: Home) -> Finding:
    seen, missing = [], []
    for package in PACKAGES:
        try:
            seen.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("packages", False, "missing: " + ", ".join(missing), "Run `make setup`.")
    return Finding("packages", True, ", ".join(seen))


def _home(home: Home) -> Finding:
    if not home.path.exists():
        above = next(folder for folder in home.path.parents if folder.exists())
        writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        seen = f"{home.path} is not there yet" + ("" if writable else f", and {above} cannot be written")
        return Finding("home", writable, seen, "Name a writable directory with --home or $STUDIO_HOME.")
    if not home.path.is_dir():
        raise InvalidInput(f"The home {home.path} is a file; name a directory with --home or $STUDIO_HOME.")
    for folder in (home.checkpoints, home.runs, home.exports):
        if folder.exists() and not folder.is_dir():
            remedy = f"Move {folder} away and put the directory back that was there."
            return Finding("home", False, f"{folder} is not a directory", remedy)
    with tempfile.TemporaryFile(dir=home.path) as probe:
        probe.write(b"x" * 4096)
    return Finding("home", True, f"{home.path} is writable")


@contextmanager
def _looking(home: Home) -> Iterator[Database | None]:
    """The database to read from; None where there is none yet, or one of an earlier release that is not migrated."""
    db = home.look()
    try:
        yield db if db is not None and schema_version(db) == newest_revision() else None
    finally:
        if db is not None:
            db.dispose()


def _database(home: Home) -> Finding:
    db = home.look()
    if db is None:
        return Finding("database", True, "not there yet; the first command makes it")
    try:
        version, newest = schema_version(db), newest_revision()
        integrity, contents = check_integrity(db), check_references(db)
        if integrity == contents == "ok" and version == newest:
            contents = check_values(db)
    except DatabaseDamaged as error:
        return Finding("database", False, f"integrity {error.reason}", error.remedy)
    finally:
        db.dispose()
    later = "" if version == newest else f", which the next command brings to {newest}"
    seen = f"integrity {integrity}{'' if contents == 'ok' else f', {contents}'}, schema {version}{later}"
    return Finding("database", integrity == contents == "ok", seen, _RESTORE)


def _starter(home: Home) -> Finding:
    if is_model_directory(STARTER_DIR):
        return Finding("starter", True, f"{STARTER_DIR} is there")
    return Finding(
        "starter",
        False,
        f"{STARTER_DIR} holds no model",
        "Fetch the whole repository, or use `studio up --policy MODEL`.",
    )


def _contents(home: Home) -> Finding:
    with _looking(home) as db:
        if db is None:
            return Finding("contents", True, "a fresh home, or one to migrate; the first command fills it")
        prompts, policies, champion = count_prompts(db), list_policies(db), get_champion(db)
        if champion is None and prompts == 0 and not policies:
            return Finding("contents", True, "a fresh home; the first command fills it")
        seen = f"{prompts} prompts, {len(policies)} policies, champion {champion.name if champion else 'none'}"
        remedy = "Run `studio policies promote NAME`, or `studio up --policy MODEL`."
        return Finding("contents", champion is not None, seen, remedy)


def _bases(home: Home) -> Finding:
    """Whether the models lie where the policies and reward models on them look for them."""
    with _looking(home) as db:
        if db is None:
            return Finding("bases", True, _NOT_READ)
        missing, unfetched = missing_bases(db), unfetched_bases(db)
    if missing:
        return Finding("bases", False, missing_in_words(missing), remedy_for(missing))
    named = ", ".join(use.base for use in unfetched[:4])
    return Finding("bases", True, f"not fetched yet: {named}" if unfetched else "every base lies at its place")


def _space(home: Home) -> Finding:
    there = next(folder for folder in (home.path, *home.path.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return Finding("disk", free >= MIN_DISK_BYTES, f"{free / 1024**3:.1f} GiB free", FREE_SPACE)


def _memory(home: Home) -> Finding:
    free = psutil.virtual_memory().available
    return Finding(
        "memory", free >= MIN_MEMORY_BYTES, f"{free / 1024**3:.1f} GiB available", "Close something: 2 GiB are needed."
    )


def _worker(home: Home) -> Finding:
    holder = home.worker_holder()
    if holder is not None:
        where = f", for {words}" if (words := words_in_lock(holder)) else ""
        return Finding("worker", True, f"alive, pid {holder.get('pid')}{where}")
    with _looking(home) as db:
        if db is None:
            return Finding("worker", True, _NOT_READ)
        waiting = len(list_runs(db, states=[RunState.queued]))
    seen = f"none is alive, {waiting} runs wait"
    return Finding("worker", waiting == 0, seen, "Start `studio up` or `studio worker`.")


def _silent_runs(home: Home) -> Finding:
    with _looking(home) as db:
        if db is None:
            return Finding("runs", True, _NOT_READ)
        active = list_runs(db, states=[state for state in RunState if state.is_active])
    silent = [
        run.id
        for run in active
        if now() - (run.heartbeat_at or run.created_at) > max(SILENT_AFTER, timedelta(seconds=LAUNCH_SECONDS))
    ]
    if silent:
        return Finding(
            "runs", False, f"silent: {', '.join(silent)}", "Read `studio runs logs ID`, then cancel or resume it."
        )
    return Finding("runs", True, f"{len(active)} at work, none silent")


def _target(home: Home, kind: type[Target], variables: Mapping[str, str]) -> Finding:
    target = kind.from_environment(variables)
    if target is None:
        return Finding(kind.NAME, True, f"{kind.NOUN} is not named: runs are processes of this machine")
    return Finding(kind.NAME, True, target.check(home).look())


CHECKS: dict[str, Callable[[Home], Finding]] = {
    "python": _python,
    "packages": _packages,
    "home": _home,
    "database": _database,
    "starter": _starter,
    "contents": _contents,
    "bases": _bases,
    "disk": _space,
    "memory": _memory,
    "worker": _worker,
    "runs": _silent_runs,
}
