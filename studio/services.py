"""What every tab and every route is given: one bundle over one home. The page and REST call nothing else.

A method here is one thing a person can do or ask for. Rules that hold whatever the door live here: who a lease
belongs to, that only one generate run fills the pool at a time, that a promotion is followed by pairs from the
new champion. Nothing here waits for a model, but ``generate`` (replies on demand), which is not for annotators.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze as datasets
from feedback.errors import Conflict, InvalidInput, LeaseLost, NotAllowed, NotEnoughData, NotSignedIn, StudioError
from feedback.labeling import amending, assignment, judging, run_replies
from feedback.labeling.assignment import CHECKS, Task
from feedback.labeling.judging import Submitted
from feedback.store.content import generations as generation_store
from feedback.store.content import prompts as prompt_store
from feedback.store.content.prompts import SavedPrompts
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import idle_leases as idle_store
from feedback.store.labeling import judgments as judgment_store
from feedback.store.labeling import leases as lease_store
from feedback.store.labeling import matchups as matchup_store
from feedback.store.labeling import settings as guideline_store
from feedback.store.labeling.judgments import AnnotatorFigures
from feedback.store.labeling.settings import CurrentSettings
from feedback.store.models import checkpoints as checkpoint_store
from feedback.store.models import policies as policy_store
from feedback.store.models import runs as run_store
from feedback.store.models import scorecards as scorecard_store
from feedback.store.people import audit as audit_store
from feedback.store.people import users as user_store
from feedback.store.reports import lineage as lineage_store
from feedback.tables import (
    AuditRow,
    CheckpointRow,
    ChecksRow,
    DatasetRow,
    GenerationRow,
    GuidelinesRow,
    MatchupRow,
    MetricRow,
    PolicyRow,
    PromptRow,
    RunRow,
    ScorecardRow,
    UserRow,
)
from feedback.types import (
    Checks,
    DatasetFilters,
    Guidelines,
    PreferencePair,
    Prompt,
    RunState,
    Split,
    UserRole,
    UserStatus,
    Verdict,
    now,
)
from studio import people
from studio.measuring import Measuring
from studio.people import NewUser
from studio.replies import ReplyMaker
from studio.reviewing import Reviewing
from studio.roles import LOCAL, ActingServices, Person
from training.bundled import STARTER_BASE
from training.evaluation import standing
from training.evaluation.people import PEOPLE, asked_of_people
from training.home import Home
from training.methods import METHODS
from training.operations.rebase import Rebased, rebase
from training.reporting.files import last_traceback, sample_replies
from training.rewards.functions import reward_function_names
from training.rewards.oracles import oracle_rules
from training.runs import lifecycle, queue
from training.settings.parsing import Setting, describe, settings_class
from training.starter.families import FAMILIES

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL_ANNOTATOR = LOCAL.name
"""Who judges while no users exist."""

REFILL_BELOW = 10
"""Open matchups under which a judgment asks for more."""

DECK_SIZE = 2
"""Matchups a browser holds: the one on its screen, and the next, so that no vote waits for the network."""

LOOK_EVERY = 4
"""Judgments between two looks at how full the pool is; well below ``REFILL_BELOW``, so none comes too late."""

POOL_SIZE = 50
"""Prompts that one generate run answers when it fills the pool."""

CURVES_OFFERED = 500
"""Newest runs among which trainings are looked for whose curves can be compared."""

ROLLOUTS_SHOWN = 12
"""Replies of a run that its page shows."""

GUIDELINES = (
    "Choose the reply you would rather receive: it does what was asked, reads well and is true. "
    "If both serve equally well it is a tie; if neither is usable both are bad; skip what you cannot judge."
)

_OWN_GUIDELINES = GuidelinesRow(version=0, text=GUIDELINES, criteria=[], asks_rationale=False)
_ACTIVE = (RunState.queued, RunState.starting, RunState.running, RunState.stopping)
_PENDING = (RunState.queued, RunState.starting, RunState.running)


@dataclass(frozen=True)
class LabelCounts:
    """Where an annotator stands: what they judged and skipped, and what is ``left`` that their page can get now.

    ``elsewhere`` counts what other open windows of theirs hold, ``until`` then at most. ``pool`` is what is open for
    anybody, counted only where nothing is left.
    """

    done: int
    left: int
    skipped: int = 0
    elsewhere: int = 0
    until: datetime | None = None
    pool: int = 0


@dataclass(frozen=True)
class FeedbackCounts:
    """What there is to freeze: prompts for work, judgments by verdict and by source, the pool.

    ``drawn`` has the sizes of the dataset that would come of it: pairs, train, test, prompts.
    """

    prompts: int
    verdicts: dict[str, int]
    sources: dict[str, int]
    drawn: dict[str, int]
    open_matchups: int


@dataclass(frozen=True)
class PolicySummary:
    """A policy with what the list shows beside it; ``win_rate`` is the measurement that speaks for it."""

    policy: PolicyRow
    is_champion: bool
    parent: str | None
    dataset: str | None
    win_rate: ScorecardRow | None
    against: str | None


@dataclass(frozen=True)
class RunsAsked:
    """Which runs to list; what is None is not asked for. ``before`` is the id of a run: those older than it."""

    method: str | None = None
    state: RunState | None = None
    name: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class RunsPage:
    """Runs, newest first; ``older`` is the ``before`` of the next page, None on the last. ``total`` counts all."""

    runs: list[RunRow]
    older: str | None
    total: int


@dataclass(frozen=True)
class Promotion:
    """A new champion, the one it took over from, and the run that fills the pool with its replies."""

    policy: PolicyRow
    previous: str | None
    run: RunRow | None


class Services:
    """One home and its database, with every act and question of the page, the routes and the tests."""

    def __init__(self, home: Home, db: Database) -> None:
        self.home = home
        self.db = db
        self.replies = ReplyMaker(home, db)
        self.reviewing = Reviewing(db)
        self.measuring = Measuring(db)
        self._filling = threading.Lock()
        self._in_force = CurrentSettings(db)
        self._reach_counts = idle_store.ReachCounts()
        self._judged = itertools.count()
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refill")
        # One thread for the votes of all annotators: more would only fight over the interpreter and the write lock.
        self._scribe = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scribe")
        self._pending_refill: Future[None] | None = None

    # People -----------------------------------------------------------------------------------------------

    def acting_as(self, person: Person | None) -> Services:
        """The services as one person is given them: roles are checked and acts written down on every call.

        None is somebody who did not sign in: while there are no users that is ``LOCAL``, who may do everything;
        later it raises NotSignedIn.
        """
        if person is None and user_store.any_user(self.db):
            raise NotSignedIn("Sign in first, or send a token: `Authorization: Bearer TOKEN`.")
        return cast(Services, ActingServices(self, self.db, person or LOCAL))

    def whoami(self, person: Person = LOCAL) -> Person:
        """Who is asking."""
        return person

    def list_users(self) -> list[UserRow]:
        """All users, disabled ones too."""
        return user_store.list_users(self.db)

    def add_user(self, name: str, role: UserRole | str, person: Person = LOCAL) -> NewUser:
        """Add a user; password and token are in the answer and nowhere else."""
        people.require_admin_first(self.db, people.known_role(role))
        return people.add_user(self.db, name, role, actor=person.name)

    def set_user_role(self, name: str, role: UserRole | str, person: Person = LOCAL) -> UserRow:
        """Give a user another role, at once."""
        return user_store.set_user_role(self.db, name, people.known_role(role), actor=person.name)

    def disable_user(self, name: str, person: Person = LOCAL) -> UserRow:
        """Shut a user out at once; everything they judged stays."""
        return user_store.set_user_status(self.db, name, UserStatus.disabled, actor=person.name)

    def enable_user(self, name: str, person: Person = LOCAL) -> UserRow:
        """Let a disabled user in again, with the password they had; a token must be given anew."""
        return user_store.set_user_status(self.db, name, UserStatus.active, actor=person.name)

    def new_token(self, name: str, person: Person = LOCAL) -> tuple[UserRow, str]:
        """Another token for a user, in plain for this once."""
        return people.new_token(self.db, name, actor=person.name)

    def reset_password(self, name: str, person: Person = LOCAL) -> tuple[UserRow, str]:
        """Another password for a user, made up and in plain for this once."""
        return people.reset_password(self.db, name, actor=person.name)

    def change_own_password(self, current: str, wanted: str, address: str = "unknown", person: Person = LOCAL) -> None:
        """Change the password of whoever asks, from ``address``; a wrong present one counts as a failed sign-in."""
        people.change_own_password(self.db, person, current, wanted, address=address)

    def list_audit(self, limit: int = 100, before: int | None = None, actor: str | None = None) -> list[AuditRow]:
        """Who did what when, newest first."""
        return audit_store.list_events(self.db, limit=limit, before=before, actor=actor)

    # Labeling ---------------------------------------------------------------------------------------------

    async def in_turn(self, act: Callable[..., T], *values: Any) -> T:
        """Do something short that writes, after what was asked for before it, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._scribe, act, *values)

    def lease_task(self, annotator: str = LOCAL_ANNOTATOR) -> Task | None:
        """A matchup nobody else holds, leased to the annotator; None when the pool has none for them."""
        return self._lease(annotator, None, self.checks())

    def lease_with_guidelines(self, annotator: str = LOCAL_ANNOTATOR) -> tuple[Task | None, str]:
        """As ``lease_task``, with what annotators are asked now: one look at the settings for both."""
        settings = self._in_force.now()
        task = self._lease(annotator, None, settings.checks or CHECKS)
        return task, settings.guidelines.text if settings.guidelines else GUIDELINES

    def current_task(self, session: str, annotator: str = LOCAL_ANNOTATOR) -> Task | None:
        """What a browser shows: the lease its session holds, else a new one; None when the pool is empty.

        One session never holds two leases, however many windows ask at once: the look and the lease are one
        transaction.
        """
        return self._lease(annotator, session, self.checks())

    def deck(self, session: str, annotator: str = LOCAL_ANNOTATOR, *, size: int = DECK_SIZE) -> list[Task]:
        """What a browser holds, the task on its screen first, filled up to ``size``; empty when the pool is."""
        tasks = assignment.fill_deck(self.db, annotator, session, size=size, checks=self.checks())
        if len(tasks) < size:
            self.refill_soon(empty_handed=not tasks)
        return tasks

    def _lease(self, annotator: str, session: str | None, checks: Checks) -> Task | None:
        task = assignment.lease_next(self.db, annotator, session=session, checks=checks, resume=True)
        if task is None:
            self.refill_soon(empty_handed=True)
        return task

    def extend(self, lease: str, annotator: str = LOCAL_ANNOTATOR) -> datetime:
        """A sign of life from whoever works on a task: the moment its lease now ends."""
        return assignment.heartbeat(self.db, lease, annotator)

    def keep(self, lease: str, session: str, annotator: str = LOCAL_ANNOTATOR, *, at_work: bool = True) -> datetime:
        """A sign of life from a page: its task stays with it, and for longer while somebody is ``at_work`` there."""
        seconds = assignment.LEASE_SECONDS if at_work else 0.0
        return assignment.heartbeat(self.db, lease, annotator, session=session, lease_seconds=seconds)

    def leave(self, session: str, annotator: str = LOCAL_ANNOTATOR) -> int:
        """A page is being closed: its tasks may go to another page at once. How many these are."""
        return assignment.leave(self.db, annotator, session)

    def release(self, lease: str, annotator: str = LOCAL_ANNOTATOR) -> bool:
        """Give a task back unjudged; False when it had ended already. LeaseLost when it is somebody else's."""
        if lease_store.get_lease(self.db, lease).annotator != annotator:
            raise LeaseLost("This task is leased to another annotator; ask for a task of your own.")
        return assignment.release(self.db, lease)

    def judge(self, lease: str, annotator: str = LOCAL_ANNOTATOR, **said: Any) -> Submitted:
        """Record a verdict, a ranking or a skip under a lease. The same lease again gives the same judgment."""
        said.setdefault("guidelines", self.guidelines().version)
        submitted = judging.submit(self.db, lease, annotator, **said)
        if submitted.created and next(self._judged) % LOOK_EVERY == 0:
            self.refill_soon()
        return submitted

    def undo(self, session: str, annotator: str = LOCAL_ANNOTATOR) -> Task | None:
        """Take the person's last judgment back and show its matchup again, one made in this session first.

        None when there is none to undo.
        """
        return judging.undo_last(self.db, annotator, session=session)

    def missing_remarks(
        self, lease: str, said: dict[str, Any], annotator: str = LOCAL_ANNOTATOR
    ) -> dict[str, Any] | None:
        """What of these remarks the annotator's saved judgment of a task lacks; None where they judged it nowhere."""
        return amending.missing_remarks(self.db, lease, annotator, said)

    def add_remarks(self, lease: str, said: dict[str, Any], annotator: str = LOCAL_ANNOTATOR) -> str:
        """Add remarks to the annotator's saved judgment of a task, as its next revision; the id of the judgment."""
        return amending.add_remarks(self.db, lease, annotator, said)

    def save_draft(self, lease: str, content: dict[str, Any], annotator: str = LOCAL_ANNOTATOR) -> datetime | None:
        """Keep what is typed and set about the task on the screen; the moment it was kept."""
        return judging.save_draft(self.db, lease, annotator, content)

    def draft_of(self, task: Task) -> dict[str, Any]:
        """What was typed and set about a task before, in shown order."""
        return judging.draft_of(self.db, task)

    def label_counts(self, annotator: str = LOCAL_ANNOTATOR, *, session: str | None = None) -> LabelCounts:
        """What the annotator judged and skipped, and what is left that the page of this browser session can get."""
        tally = judgment_store.tally_judgments(self.db, annotator)
        skipped = tally[Verdict.skip.value]
        reach = idle_store.reach_of(
            self.db, annotator=annotator, session=session, at=now(), judged=tally["total"], counts=self._reach_counts
        )
        pool = 0 if reach.left else matchup_store.count_open(self.db)
        return LabelCounts(tally["total"] - skipped, reach.left, skipped, reach.elsewhere, reach.until, pool)

    def annotator_figures(self, annotator: str = LOCAL_ANNOTATOR) -> AnnotatorFigures:
        """The annotator's own work in numbers."""
        return judgment_store.annotator_figures(self.db, annotator, since=now() - timedelta(hours=24))

    def guidelines(self) -> GuidelinesRow:
        """What annotators are asked now; version 0 are the product's own words."""
        return self._in_force.now().guidelines or _OWN_GUIDELINES

    def save_guidelines(self, guidelines: Guidelines) -> GuidelinesRow:
        """Add a version of the guidelines; annotators see it with their next pair."""
        return guideline_store.save_guidelines(self.db, guidelines)

    def checks(self) -> Checks:
        """How many tasks are gold or repeats now."""
        return self._in_force.now().checks or CHECKS

    def change_checks(self, changed: dict[str, float], author: str = LOCAL_ANNOTATOR) -> ChecksRow:
        """Add a version of the checks with these settings changed; it holds from the next task on."""
        return guideline_store.change_checks(self.db, CHECKS, changed, author=author)

    # Filling the pool -------------------------------------------------------------------------------------

    def fill_pool(self, limit: int = POOL_SIZE) -> RunRow:
        """Queue a run that samples the champion's replies to ``limit`` prompts, or give back the one under way."""
        with self._filling:
            pending = self._generate_run(_PENDING)
            return pending or self._submit_fill(limit)

    def last_fill(self) -> RunRow | None:
        """The newest run that filled, fills or failed to fill the pool."""
        lifecycle.reconcile(self.db)
        return self._generate_run(None)

    def refill_soon(self, *, empty_handed: bool = False) -> None:
        """In the background, queue a generate run when the pool runs low; at most one look is ever waiting."""
        if self._pending_refill is None or self._pending_refill.done():
            self._pending_refill = self._background.submit(self._refill_logged, empty_handed)

    def refill(self, *, empty_handed: bool = False) -> RunRow | None:
        """Queue a generate run if the pool is low and the last one worked; the run, or None if none was needed.

        ``empty_handed`` says that somebody got nothing, which can be so although pairs are open: those they
        skipped do not come back to them. The first run ever, and one after a failure, a cancel or a run that
        found nothing to add, needs a person's press: otherwise every look would queue the same failure.
        """
        if not empty_handed and not matchup_store.is_low(self.db, REFILL_BELOW):
            return None
        with self._filling:
            last = self._generate_run(None)
            if last is None or last.state is not RunState.succeeded or not last.result.get("matchups"):
                return None
            return self._submit_fill(POOL_SIZE)

    def _refill_logged(self, empty_handed: bool) -> None:
        try:
            self.refill(empty_handed=empty_handed)
        except StudioError as error:
            log.warning("The pool was not refilled: %s", error)
        except Exception:
            log.exception("The pool was not refilled")

    def _submit_fill(self, limit: int) -> RunRow:
        champion = policy_store.get_champion(self.db)
        if champion is None:
            raise NotEnoughData(
                "No policy serves yet, so nothing can reply: promote one on the Policies tab, "
                "or restart with `studio up --policy MODEL`."
            )
        if not prompt_store.count_prompts(self.db, split=Split.work, brought=True):
            raise NotEnoughData("There are no prompts to reply to: `studio prompts import FILE` adds some.")
        return queue.submit(self.db, "generate", {"policy": champion.id, "limit": limit})

    def _generate_run(self, states: tuple[RunState, ...] | None) -> RunRow | None:
        """The newest run that fills the pool; one that has people measure two policies fills nothing."""
        return next(iter(run_store.list_fills(self.db, states=states, limit=1)), None)

    # Prompts and replies ----------------------------------------------------------------------------------

    def add_prompts(self, prompts: list[Prompt]) -> SavedPrompts:
        """Save prompts, each content once."""
        return prompt_store.save_prompts(self.db, prompts)

    def list_prompts(self, split: Split | None = None, limit: int | None = None) -> list[PromptRow]:
        """Prompts of one split or of both."""
        return prompt_store.list_prompts(self.db, split=split, limit=limit)

    def generate(self, policy: str, messages: list[dict[str, str]], n: int, **sampling: Any) -> list[GenerationRow]:
        """Sample ``n`` replies on demand, in this process, and keep them; slow when the policy is not loaded yet."""
        return self.replies.reply(policy, messages, n, **sampling)

    def starter_requests(self) -> list[tuple[str, str]]:
        """What the bundled policy understands, a family and an example each; empty when another model serves."""
        if not any(row.base == STARTER_BASE for row in policy_store.list_policies(self.db)):
            return []
        return [(name, draw(random.Random(name)).prompt) for name, draw in FAMILIES.items()]

    # Datasets ---------------------------------------------------------------------------------------------

    def feedback_counts(self) -> FeedbackCounts:
        """What a dataset frozen now could draw from."""
        return FeedbackCounts(
            prompts=prompt_store.count_prompts(self.db, split=Split.work),
            verdicts=judgment_store.tally_judgments(self.db),
            sources=judgment_store.tally_sources(self.db),
            drawn=datasets.preview(self.db).counts(),
            open_matchups=matchup_store.count_matchups(self.db).open,
        )

    def preview_counts(self, filters: DatasetFilters | None = None) -> dict[str, int]:
        """The sizes of the dataset that these filters would give now: pairs, train, test, prompts."""
        return datasets.preview(self.db, filters).counts()

    def freeze(self, name: str, filters: DatasetFilters | None = None) -> DatasetRow:
        """Freeze the judgments that pass the filters into a named, hashed dataset."""
        return datasets.freeze(self.db, name.strip(), filters or DatasetFilters())

    def list_datasets(self) -> list[DatasetRow]:
        """All datasets, newest first."""
        return sorted(dataset_store.list_datasets(self.db), key=lambda row: row.created_at, reverse=True)

    def get_dataset(self, key: str) -> DatasetRow:
        """A dataset by id or name."""
        return dataset_store.get_dataset(self.db, key)

    def twin_of(self, row: DatasetRow) -> str | None:
        """The name of an older dataset that holds the same as this one."""
        return dataset_store.find_identical_dataset(self.db, row)

    def preview_pairs(self, key: str, limit: int = 8) -> list[PreferencePair]:
        """The first pairs of a dataset."""
        return dataset_store.list_pairs(self.db, key, limit=limit)

    def suggest_dataset_name(self) -> str:
        """The first free name of the form ``round-N``."""
        taken = {row.name for row in dataset_store.list_datasets(self.db)}
        number = len(taken) + 1
        while f"round-{number}" in taken:
            number += 1
        return f"round-{number}"

    def export(
        self, key: str, format_name: str, split: str | None = None
    ) -> tuple[formats.Export, formats.Format, Iterator[str]]:
        """A dataset, or one side of its split, in an outside format, and its lines, read as they are taken."""
        export, chosen = formats.open_export(self.db, key, format_name, split)
        return export, chosen, chosen.lines(chosen.rows(export))

    def format_names(self) -> list[str]:
        """The outside formats a dataset can be downloaded in."""
        return sorted(formats.FORMATS)

    def count_dropped(self, key: str, format_name: str, split: str | None = None) -> dict[str, int]:
        """What an export leaves out and why, counted by reading it through once."""
        return formats.count_dropped(self.db, key, format_name, split)

    # Runs -------------------------------------------------------------------------------------------------

    def training_methods(self) -> dict[str, str]:
        """The methods that leave a checkpoint, and what each is for."""
        return {name: method.summary for name, method in METHODS.items() if method.kind == "train"}

    def needs_dataset(self, method: str) -> bool:
        """Whether a method cannot do without a dataset."""
        return settings_class(method).model_fields["dataset"].is_required()

    def describe(self, method: str) -> list[Setting]:
        """A method's settings, for a form."""
        return describe(method)

    def submit_run(
        self,
        method: str,
        config: dict[str, Any],
        *,
        after: str | None = None,
        priority: int = 0,
        person: Person = LOCAL,
    ) -> RunRow:
        """Queue a run with exactly this configuration, behind the run ``after`` where one is named."""
        if config.get("include") is not None and not person.role.covers(UserRole.admin):
            raise NotAllowed(
                "A task's file is code that runs on this machine, so only an admin may name a folder of them."
            )
        return queue.submit(self.db, method, config, after=after, priority=priority, home=self.home)

    def list_runs(self, limit: int = 50) -> list[RunRow]:
        """The newest runs; those whose process died are marked so first."""
        lifecycle.reconcile(self.db)
        return run_store.list_runs(self.db, limit=limit)

    def page_of_runs(self, asked: RunsAsked, limit: int = 50) -> RunsPage:
        """Some runs, newest first, and where the older ones begin."""
        lifecycle.reconcile(self.db)
        if asked.method is not None:
            settings_class(asked.method)  # a method that does not exist is a mistake, not an empty list
        states = None if asked.state is None else [asked.state]
        rows = run_store.list_runs(
            self.db, states=states, method=asked.method, name=asked.name, before=asked.before, limit=limit + 1
        )
        total = run_store.count_runs(self.db, states=states, method=asked.method, name=asked.name)
        older = rows[limit - 1].id if len(rows) > limit else None
        return RunsPage(rows[:limit], older, total)

    def get_run(self, run_id: str) -> RunRow:
        """One run as it is now."""
        lifecycle.reconcile(self.db)
        return run_store.get_run(self.db, run_id)

    def names(self) -> dict[str, str]:
        """The name behind every id that a run's settings may hold."""
        named: list[Any] = [*policy_store.list_policies(self.db), *dataset_store.list_datasets(self.db)]
        named += checkpoint_store.list_checkpoints(self.db)
        return {row.id: row.name for row in named}

    def runs_with_curves(self) -> list[RunRow]:
        """The newest trainings that have points to draw; a dry run leaves none."""
        methods = self.training_methods()
        begun = [
            run for run in self.list_runs(CURVES_OFFERED) if run.method in methods and not run.config.get("dry_run")
        ]
        # One that succeeded has points, and looking for them would read them all
        return [run for run in begun if run.state is RunState.succeeded or run_store.list_metrics(self.db, run.id)]

    def worker_is_alive(self) -> bool:
        """Whether a worker of this home lives, which is what begins the runs in the queue."""
        return self.home.worker_holder() is not None

    def waiting_runs(self) -> list[RunRow]:
        """All runs that have not ended, newest first."""
        lifecycle.reconcile(self.db)
        return run_store.list_runs(self.db, states=_ACTIVE)

    def any_run_active(self) -> bool:
        """True while a run is queued or a process works on one."""
        return bool(run_store.list_runs(self.db, states=_ACTIVE, limit=1))

    def run_metrics(self, run_id: str) -> list[MetricRow]:
        """Every metric point of a run in the order written."""
        run_store.get_run(self.db, run_id)
        return run_store.list_metrics(self.db, run_id)

    def log_tail(self, run_id: str, max_bytes: int = 8_000) -> str:
        """The end of a run's log, from a line's start; empty before the run's process has written any."""
        path = self.home.log_path(run_store.get_run(self.db, run_id).id)
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            text = file.read().decode("utf-8", errors="replace")
        return text if size <= max_bytes else text.partition("\n")[2]

    def last_traceback(self, run_id: str) -> str:
        """The last traceback in a run's log; empty when there is none."""
        return last_traceback(self.home, run_id)

    def sample_replies(self, run_id: str) -> list[tuple[int, list[tuple[str, str]]]]:
        """What a run's model replied to the fixed prompts, look by look."""
        return sample_replies(self.home, run_id)

    def cancel_run(self, run_id: str) -> RunRow:
        """Ask a run to stop at its next step, or take it out of the queue."""
        return queue.cancel(self.db, run_id)

    def rollouts(self, run_id: str, limit: int = ROLLOUTS_SHOWN) -> list[tuple[str, GenerationRow]]:
        """The last replies a run drew and scored while it learnt, newest first, each with what was asked."""
        rows = generation_store.list_newest_generations(self.db, run_id, limit)
        rows = [row for row in rows if "score" in row.sampling]
        asked = {row.id: row.messages[-1]["content"] for row in self._prompts_of(rows)}
        return [(asked[row.prompt_id], row) for row in rows]

    def _prompts_of(self, rows: list[GenerationRow]) -> list[PromptRow]:
        return prompt_store.list_prompts(self.db, ids=list({row.prompt_id for row in rows})) if rows else []

    def annotate_run(self, run_id: str, limit: int = run_replies.USUAL_LIMIT) -> list[MatchupRow]:
        """Put what a run's policy replied while it learnt before the annotators, as pairs."""
        return run_replies.send_to_annotators(self.db, run_id, limit=limit)

    def resume_run(self, run_id: str) -> RunRow:
        """Queue an interrupted, failed or cancelled run again under the same id, from its last checkpoint."""
        return queue.resume(self.db, self.home, run_id)

    # Policies ---------------------------------------------------------------------------------------------

    def list_policies(self) -> list[PolicySummary]:
        """All policies, newest first, with parent, dataset and the win rate that speaks for each."""
        rows = policy_store.list_policies(self.db)
        champion = policy_store.get_champion(self.db)
        names = {row.id: row.name for row in rows}
        made_from = self._datasets_by_checkpoint()
        scorecards = self._speaking(rows)
        return [
            PolicySummary(
                policy=row,
                is_champion=champion is not None and champion.id == row.id,
                parent=names.get(row.parent_id or ""),
                dataset=made_from.get(row.checkpoint_id or ""),
                win_rate=scorecards.get(row.id),
                against=names.get(scorecards[row.id].against_id or "") if row.id in scorecards else None,
            )
            for row in reversed(rows)
        ]

    def get_policy(self, key: str) -> PolicySummary:
        """One policy, by id or name, with what the list shows beside it."""
        wanted = policy_store.get_policy(self.db, key)
        return next(summary for summary in self.list_policies() if summary.policy.id == wanted.id)

    def champion_name(self) -> str | None:
        """The name of the policy that serves."""
        champion = policy_store.get_champion(self.db)
        return champion.name if champion else None

    def promote(self, key: str) -> Promotion:
        """Make a policy the champion and queue a run that fills the pool with its replies.

        A run still filling the pool with another policy is cancelled, so that old replies do not come after new; one
        that has people measure it goes on. From the change of champion on nothing is refused: what was asked for has
        happened, and is told and written down so.
        """
        before = policy_store.get_champion(self.db)
        policy = policy_store.promote_policy(self.db, key)
        if before is not None and before.id == policy.id:
            return Promotion(policy, before.name, None)
        with self._filling:
            self._cancel_fills_of_others(policy)
            pending = self._generate_run(_PENDING)
            try:
                fill = pending or self._submit_fill(POOL_SIZE)
            except StudioError as error:
                log.warning("The pool was not filled after the promotion: %s", error)
                fill = None
        return Promotion(policy, before.name if before else None, fill)

    def _cancel_fills_of_others(self, policy: PolicyRow) -> None:
        for run in run_store.list_fills(self.db, states=_PENDING):
            if run.config.get("policy") not in (policy.id, policy.name):
                with contextlib.suppress(Conflict):  # it ended since it was listed, which is all that was wanted
                    queue.cancel(self.db, run.id)

    def rebase(self, key: str, base: str) -> Rebased:
        """Say where the base of a policy lies now, for all that stands on it; proved by its hash."""
        return rebase(self.db, self.home, key, base)

    def lineage(self, key: str) -> dict[str, Any]:
        """Everything a policy came from, back to its base model."""
        return lineage_store.policy_lineage(self.db, key)

    def list_win_rates(self, policy_id: str) -> list[tuple[ScorecardRow, str]]:
        """Every win rate of a policy, with the name of whom it was measured against, in the order they speak."""
        names = {row.id: row.name for row in policy_store.list_policies(self.db)}
        return [(card, names.get(card.against_id or "", "another")) for card in standing.win_rates(self.db, policy_id)]

    def list_reward_models(self) -> list[CheckpointRow]:
        """Reward models that can judge an evaluation, newest first."""
        rows = checkpoint_store.list_checkpoints(self.db, kind="reward")
        return sorted(rows, key=lambda row: row.created_at, reverse=True)

    def reward_functions(self) -> list[str]:
        """The reward functions that can score replies, those of installed packages included."""
        return reward_function_names()

    def oracle_rules(self) -> list[str]:
        """The rules that can judge as they stand; those with a part to fill in are for the command."""
        return [rule for rule in oracle_rules() if ":" not in rule]

    def evaluate(self, policy: str, against: str, judge: str, prompts: int) -> RunRow:
        """Queue a win-rate evaluation. ``judge`` is an oracle rule, ``reward:`` and a reward checkpoint, or ``people``.

        People are asked by pairs that come first on the Label tab; what they say is counted as it comes in.
        """
        if not against or not judge:
            raise InvalidInput("Choose a policy to compare with and who judges.")
        if policy == against:
            raise InvalidInput(f"{policy!r} cannot be compared with itself; choose another policy to compare with.")
        if judge == PEOPLE:
            return queue.submit(self.db, "generate", asked_of_people(policy, against, prompts))
        kind, _, checkpoint = judge.partition(":")
        by = {"reward": checkpoint} if kind == "reward" else {"oracle": judge}
        return queue.submit(self.db, "evaluate", {"a": policy, "b": against, "prompts": prompts, **by})

    def _datasets_by_checkpoint(self) -> dict[str, str]:
        names = {row.id: row.name for row in dataset_store.list_datasets(self.db)}
        rows = checkpoint_store.list_checkpoints(self.db)
        return {row.id: names[row.dataset_id] for row in rows if row.dataset_id in names}

    def _speaking(self, rows: Sequence[PolicyRow]) -> dict[str, ScorecardRow]:
        """The measurement that stands for each policy, by its id; the gate asks the same one."""
        cards: dict[str, list[ScorecardRow]] = {}
        for card in scorecard_store.list_scorecards(self.db):
            cards.setdefault(card.subject_id, []).append(card)
        found = {row.id: standing.speaking(self.db, row, cards.get(row.id, [])) for row in rows}
        return {key: card for key, card in found.items() if card is not None}

    def close(self) -> None:
        """Let the background thread finish and forget the loaded policy."""
        self._scribe.shutdown(wait=True)
        self._background.shutdown(wait=True, cancel_futures=True)
        self.replies.forget()
