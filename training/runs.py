"""The run queue: submit, cancel, resume, reconcile, wait; and the one table of what may follow what.

    queued → starting → running → succeeded | failed | cancelled | interrupted
    queued → failed when the run that is waited for did not succeed (``training.dependencies``)
    stopping lies on the way to cancelled; interrupted, failed and cancelled go back to queued by ``resume``

Every step is a compare-and-swap on the state, so a process that reports its own end and a worker that finds it
dead cannot both be right: whoever comes second changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel

from feedback.database.engine import Database
from feedback.errors import (
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    NotEnoughData,
    NotFound,
    StudioError,
    UnknownSetting,
)
from feedback.store.datasets.datasets import get_dataset
from feedback.store.models.checkpoints import get_checkpoint, get_to_score
from feedback.store.models.policies import check_can_reply, check_has_weights, get_champion, get_policy
from feedback.store.models.runs import get_run, list_runs, save_run, transition_run
from feedback.tables import RunRow
from feedback.types import MAX_PRIORITY, Run, RunState, now, number_not_truth
from training.config import (
    BenchmarkSettings,
    DpoSettings,
    GenerateSettings,
    PpoSettings,
    RewardedSettings,
    RewardSettings,
    TrainSettings,
    parse_settings,
)
from training.dependencies import check_after, promised_names
from training.home import Home
from training.judges import refuse_other_base
from training.launch.local import is_alive, is_here
from training.methods import METHODS
from training.models import check_quantize
from training.oracles import check_rule
from training.parents import check_trains_on
from training.reward_functions import get_reward_function, reward_function_names
from training.rewards import checkpoint_keys

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    # A queued run fails without a process when the run it waits for did.
    RunState.queued: frozenset({RunState.starting, RunState.cancelled, RunState.failed}),
    RunState.starting: frozenset({RunState.running, RunState.stopping, RunState.failed, RunState.interrupted}),
    RunState.running: frozenset(
        {RunState.stopping, RunState.succeeded, RunState.failed, RunState.cancelled, RunState.interrupted}
    ),
    # A run that was asked to stop after its last step has done its work: the truth is that it succeeded.
    RunState.stopping: frozenset({RunState.cancelled, RunState.succeeded}),
    RunState.succeeded: frozenset(),
    RunState.failed: frozenset({RunState.queued}),
    RunState.cancelled: frozenset({RunState.queued}),
    RunState.interrupted: frozenset({RunState.queued}),
}

MIN_TRAINING_PAIRS = 2
NEED_PAIRS = (RewardSettings, DpoSettings)
# How long a claimed run may go without a process before its launch counts as lost.
LAUNCH_SECONDS = 60.0
# A run beats every second; where its pid cannot be looked at, on another machine, so long a silence is its end.
SILENT_SECONDS = 120.0
# How long who waits for a run waits for a database that is locked or away.
AWAY_SECONDS = 120.0
ACTIVE = tuple(state for state in RunState if state.is_active)


def may_precede(to: RunState) -> frozenset[RunState]:
    """The states from which ``to`` can be reached in one step."""
    return frozenset(state for state, following in TRANSITIONS.items() if to in following)


def advance(db: Database, run_id: str, to: RunState, **changes: Any) -> RunRow | None:
    """Move a run to ``to`` if the table allows it from where it is; None when it does not."""
    if to.is_terminal:
        changes.setdefault("ended_at", now())
    if to is RunState.cancelled:
        changes.setdefault("progress_text", to.value)
    return transition_run(db, run_id, expected=may_precede(to), to=to, **changes)


def submit(
    db: Database,
    method: str,
    config: dict[str, Any],
    *,
    priority: int = 0,
    after: str | None = None,
    home: Home | None = None,
) -> RunRow:
    """Queue a run after checking all that can be known now: the method, its settings, what they refer to.

    A policy left out is filled in with the present champion, so that a promotion while the run waits does not
    change what was asked for. ``after`` names a run that must succeed first, and whose product may be referred to;
    both it and ``priority`` (higher begins first) may also stand in ``config``. With ``home``, a name is also refused
    for what lies there and is not in the database.
    """
    if method not in METHODS:
        raise UnknownSetting(f"There is no method {method!r}. Valid: {', '.join(sorted(METHODS))}.")
    config = dict(config)
    after, asked = config.pop("after", None) or after, config.pop("priority", None)
    priority = _priority(priority if asked is None else asked)
    if not isinstance(after, str | None):
        raise InvalidInput(f"after={after!r:.40} is not the id of a run; `studio runs list` shows them.")
    before = check_after(db, after)
    settings = parse_settings(method, {name: value for name, value in config.items() if value is not None})
    # As understood, not as typed: a command line says "3" where 3 is meant.
    config = settings.model_dump(mode="json", include=set(config), exclude_none=True)
    promised = promised_names(db, before)
    config |= _check_references(db, settings, promised)
    _check_name(db, home, settings, promised)
    _check_libraries(settings)
    waits = f"waits for {before.id}" if before is not None and before.state is not RunState.succeeded else ""
    run = Run(method=method, config=config, priority=priority, after=before.id if before else None, progress_text=waits)
    return save_run(db, run)


def cancel(db: Database, run_id: str) -> RunRow:
    """End a waiting run at once; ask an active one to stop. Cancelling twice, or too late, is a Conflict."""
    ended = {"ended_at": now(), "progress_text": RunState.cancelled.value}
    run = transition_run(db, run_id, expected=[RunState.queued], to=RunState.cancelled, **ended) or transition_run(
        db,
        run_id,
        expected=[RunState.starting, RunState.running],
        to=RunState.stopping,
        progress_text="stopping",
    )
    if run is not None:
        return run
    run = get_run(db, run_id)
    if run.state is RunState.stopping:
        return run
    raise Conflict(f"Run {run.id} is {run.state.value} already; only a waiting or working run can be cancelled.")


def resume(db: Database, home: Home, run_id: str) -> RunRow:
    """Queue an ended run again under the same id; it goes on from its last checkpoint if it left one."""
    ended = get_run(db, run_id)
    run = transition_run(
        db,
        run_id,
        expected=may_precede(RunState.queued),
        to=RunState.queued,
        attempt=ended.attempt + 1,
        error=None,
        result={},
        pid=None,
        pid_started=None,
        host=None,
        started_at=None,
        ended_at=None,
        heartbeat_at=None,
        progress_text="",
    )
    if run is None:
        raise Conflict(
            f"Run {run_id} is {get_run(db, run_id).state.value}; "
            "only a failed, cancelled or interrupted run can be resumed."
        )
    _note(home, run)
    return run


def reconcile(db: Database) -> list[RunRow]:
    """Find runs whose process is gone and say so; returns those it changed.

    On this machine pid and start decide, since a process that is stopped or swapped out beats no more and is not
    dead; for another machine's run its heartbeat does. Safe at any time and from any process: a run that reports its
    own end meanwhile wins.
    """
    changed = []
    for run in list_runs(db, states=ACTIVE):
        if not _is_lost(db, run):
            continue
        # Between the list and now it may have ended by itself, or been resumed: then this is another process's run.
        fresh = get_run(db, run.id)
        if not fresh.state.is_active or (fresh.pid, fresh.attempt) != (run.pid, run.attempt):
            continue
        to = RunState.cancelled if fresh.state is RunState.stopping else RunState.interrupted
        error = None if to is RunState.cancelled else _last_words(db, fresh)
        text = to.value if to is RunState.cancelled else fresh.progress_text
        ended = {"ended_at": now(), "error": error, "progress_text": text}
        moved = transition_run(db, run.id, expected=[fresh.state], to=to, **ended)
        if moved is not None:
            changed.append(moved)
    return changed


def wait(
    db: Database,
    run_id: str,
    *,
    on_change: Callable[[RunRow], None] | None = None,
    on_poll: Callable[[], None] | None = None,
    timeout: float | None = None,
    poll_seconds: float = 0.2,
) -> RunRow:
    """Block until a run has ended, calling ``on_change`` whenever its state or progress moved.

    ``on_poll`` is called at every look: a waiting command sees to its worker there. Raises StudioError when
    ``timeout`` seconds pass first; the run itself goes on. A database that is locked or away is waited for: a run
    takes hours, and a server is restarted in less than ``AWAY_SECONDS``.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    seen: tuple[Any, ...] | None = None
    while True:
        run = _seen(db, run_id)
        present = (run.state, run.progress, run.progress_text)
        if present != seen and on_change is not None:
            on_change(run)
        seen = present
        if run.state.is_terminal:
            return run
        if on_poll is not None:
            on_poll()
        if time.monotonic() >= deadline:
            raise StudioError(
                f"Run {run_id} is still {run.state.value} after {timeout:g} s and goes on; "
                f"see `studio runs show {run_id}`."
            )
        time.sleep(poll_seconds)


def _seen(db: Database, run_id: str) -> RunRow:
    """A run as it is, once the database can be read."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return get_run(db, run_id)
        except DatabaseUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1.0)


def _check_references(db: Database, settings: BaseModel, promised: Collection[str] = ()) -> dict[str, str]:
    """Raise for a name in the settings that nothing answers to; returns the champions to fill in.

    Names ``promised`` by the runs that are waited for need not exist yet.
    """
    named = settings.model_dump()
    values: dict[str, Any] = {name: None if str(value) in promised else value for name, value in named.items()}
    if values.get("dataset") is not None:
        _check_dataset(db, values["dataset"], settings)
    if values.get("reward") is not None:
        several = isinstance(settings, RewardedSettings)
        for key in checkpoint_keys(values["reward"]) if several else [values["reward"]]:
            get_to_score(db, key)
    _check_weights(db, settings, promised)
    if values.get("canary_reward") is not None:
        get_to_score(db, values["canary_reward"])
    if isinstance(settings, PpoSettings):
        _check_one_base(db, settings, promised)
    if values.get("reward_function") is not None:
        get_reward_function(values["reward_function"])
    if values.get("picker") is not None:
        _check_picker(db, values["picker"])
    if values.get("oracle") is not None:
        _check_oracle(db, values["oracle"])
    for field in ("policy", "parent", "a", "b", "against"):
        if values.get(field) is not None:
            check_can_reply(get_policy(db, values[field]))
    if isinstance(settings, TrainSettings) and str(settings.parent) not in promised:
        _check_parent(db, settings)
    left_out = [field for field in ("policy", "parent") if field in named and named[field] is None]
    filled: dict[str, str] = {field: _champion_name(db) for field in left_out}
    if isinstance(settings, GenerateSettings) and settings.against is not None:
        _check_two(db, settings.policy or filled["policy"], settings.against, promised)
    return filled


def _check_two(db: Database, one: str, other: str, promised: Collection[str]) -> None:
    """A policy that is yet to be made has a name and no id."""
    ids = [key if key in promised else get_policy(db, key).id for key in (one, other)]
    if ids[0] == ids[1]:
        raise InvalidInput(f"{other!r} cannot be compared with itself; name another policy to compare with.")


def _check_weights(db: Database, settings: BaseModel, promised: Collection[str]) -> None:
    """What is trained, or asked how likely a token is, must have its weights here."""
    if not isinstance(settings, TrainSettings | BenchmarkSettings):
        return
    key = settings.parent if isinstance(settings, TrainSettings) else settings.policy
    policy = None if key in promised else get_policy(db, key) if key else get_champion(db)
    if policy is not None:
        check_has_weights(policy)


def _check_parent(db: Database, settings: TrainSettings) -> None:
    parent = get_policy(db, settings.parent) if settings.parent else get_champion(db)
    if parent is not None and parent.checkpoint_id is not None:
        kind = get_checkpoint(db, parent.checkpoint_id).manifest.get("adapter", {}).get("kind", "")
        check_trains_on(parent.name, parent.base, kind, settings)


def _check_one_base(db: Database, settings: PpoSettings, promised: Collection[str]) -> None:
    """PPO's reward models live on the base of its policy."""
    if settings.parent in promised:
        return
    parent = get_policy(db, settings.parent) if settings.parent else get_champion(db)
    for key in [*settings.reward_checkpoints(), *filter(None, [settings.canary_reward])]:
        if parent is not None and key not in promised:
            row = get_checkpoint(db, key)
            refuse_other_base(row.name, row.base, row.manifest.get("base_hash"), parent.base)


def _champion_name(db: Database) -> str:
    champion = get_champion(db)
    if champion is None:
        raise InvalidInput(
            "No policy serves yet; name one, promote one with `studio policies promote NAME`, "
            "or register a model with `studio up --policy MODEL`."
        )
    return champion.name


def _check_dataset(db: Database, key: str, settings: BaseModel) -> None:
    dataset = get_dataset(db, key)
    if not isinstance(
        settings, NEED_PAIRS
    ):  # edits, both-bad verdicts and prompts teach too; the method says when there are too few
        return
    pairs = dataset.counts.get("train", dataset.counts.get("pairs", 0))
    fewest = getattr(settings, "FEWEST", MIN_TRAINING_PAIRS)
    if MIN_TRAINING_PAIRS <= pairs < fewest and not getattr(settings, "allow_few", False):
        raise NotEnoughData(
            f"Dataset {dataset.name!r} has {pairs} training pairs, and {getattr(settings, 'METHOD', 'this method')} "
            f"learns nothing that lasts from fewer than {fewest}; judge more pairs (200 are a good start), or insist "
            "with --set allow_few=true."
        )
    if pairs < MIN_TRAINING_PAIRS:
        raise NotEnoughData(
            f"Dataset {dataset.name!r} has {pairs} training pair{'' if pairs == 1 else 's'}, and at least "
            f"{MIN_TRAINING_PAIRS} are needed; judge more pairs (200 are a good start) and freeze a new dataset."
        )


def _check_picker(db: Database, picker: str) -> None:
    """A picker is a reward function by its rule, or reward checkpoints."""
    if picker.partition(":")[0] in reward_function_names():
        get_reward_function(picker)
        return
    for key in checkpoint_keys(picker):
        get_to_score(db, key)


def _check_oracle(db: Database, rule: str) -> None:
    check_rule(rule)
    kind, _, checkpoint = rule.partition(":")
    if kind == "reward":
        get_to_score(db, checkpoint.strip())


def check_harness() -> None:
    """Raise InvalidInput where lm-evaluation-harness, which benchmarks need, is not installed."""
    if find_spec("lm_eval") is None:
        raise InvalidInput(
            "Benchmarks need lm-evaluation-harness, which is not installed: `make eval`, or `pip install lm-eval`. "
            "Results from elsewhere come in by `studio benchmark import`."
        )


def _check_libraries(settings: BaseModel) -> None:
    """A setting that needs a library which is missing must be refused now, not in the run's process."""
    check_quantize(str(getattr(settings, "quantize", None) or "none"))
    if isinstance(settings, BenchmarkSettings):
        check_harness()
    reporter = getattr(settings, "report_to", None) or "none"
    if reporter != "none" and find_spec(reporter) is None:
        raise InvalidInput(
            f"report_to={reporter} needs the package {reporter}, which is not installed: `pip install {reporter}`, "
            "or leave report_to out; the studio keeps the curves itself in any case."
        )


def _priority(given: Any) -> int:
    try:
        number = int(number_not_truth(given))
        if number != float(given) or abs(number) > MAX_PRIORITY:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"priority={given!r:.40} is not a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}; "
            "higher begins first, 0 is usual."
        ) from None
    return number


def _check_name(db: Database, home: Home | None, settings: BaseModel, promised: Collection[str] = ()) -> None:
    """A name that is taken must be refused now, not when the training is over."""
    name = getattr(settings, "name", None)
    if name is None:
        return
    if name in promised:
        raise Conflict(f"The run that is waited for will be named {name!r} too; choose another --name.")
    for noun, find in (("policy", get_policy), ("checkpoint", get_checkpoint)):
        try:
            find(db, name)
        except NotFound:
            continue
        raise Conflict(f"There is already a {noun} {name!r}; choose another --name.")
    if home is not None and (home.checkpoints / name).exists():
        raise Conflict(f"There is already a directory {home.checkpoints / name}; choose another --name.")


def _is_lost(db: Database, run: RunRow) -> bool:
    if not is_here(db, run):
        return now() - _last_beat(run) >= timedelta(seconds=SILENT_SECONDS)
    if run.pid is not None:
        return not is_alive(run.pid, run.pid_started)
    began = run.started_at or run.created_at
    return now() - began > timedelta(seconds=LAUNCH_SECONDS)


def _last_beat(run: RunRow) -> datetime:
    return run.heartbeat_at or run.started_at or run.created_at


def _last_words(db: Database, run: RunRow) -> str:
    if not is_here(db, run):
        return (
            f"Nothing was heard from it since {_last_beat(run):%Y-%m-%d %H:%M:%S} UTC; it worked on {run.host}, "
            f"which may be down or cut off; resume it with `studio runs resume {run.id}`."
        )
    if run.pid is None:
        return f"No process began within {LAUNCH_SECONDS:.0f} s; resume it with `studio runs resume {run.id}`."
    return (
        f"The process (pid {run.pid}) ended without a word, perhaps killed for want of memory; its last lines are "
        f"in `studio runs logs {run.id}`; resume it with `studio runs resume {run.id}`."
    )


def _note(home: Home, run: RunRow) -> None:
    log = home.log_path(run.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"{now():%Y-%m-%d %H:%M:%S} resumed: attempt {run.attempt}\n")
