"""What every tab, every route and the shell are given: the acts of one person over one home, by noun.

An act is one thing a person can do or ask for. A noun is imported when it is first asked for: a command of the shell
needs one or two of them, and is to begin at once. Nothing here waits for a model, but ``policies.generate`` (replies on
demand) and ``policies.add`` and ``check`` (a process of its own opens the model), which are not for annotators.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from feedback.database.engine import Database
from feedback.errors import NotSignedIn
from feedback.store.labeling.idle_leases import ReachCounts
from feedback.store.labeling.settings import CurrentSettings
from feedback.store.people.users import any_user
from studio.background.model_examiner import ModelExaminer
from studio.background.pool_filler import PoolFiller
from studio.background.reply_maker import ReplyMaker
from studio.background.reply_processes import ReplyProcesses
from studio.identity import LOCAL, Person
from studio.services.evaluation import Evaluation, Remembered
from studio.services.review import QualityReports, Review
from training.home import Home

if TYPE_CHECKING:
    from feedback.types import Side
    from studio.services.datasets import Datasets
    from studio.services.labeling import Labeling
    from studio.services.playground import Playground, Reply
    from studio.services.policies import Policies
    from studio.services.prompts import Pool, Prompts
    from studio.services.rounds import Rounds
    from studio.services.runs import Runs
    from studio.services.users import Users

T = TypeVar("T")


class Shared:
    """What the acts of all persons have in common: the home, its database, caches and threads."""

    def __init__(self, home: Home, db: Database) -> None:
        self.home = home
        self.db = db
        self.filler = PoolFiller(db)
        self.replies = ReplyMaker(home, db)
        self.repliers = ReplyProcesses(home, db)
        self.examiner = ModelExaminer(home)
        self.drawing: dict[tuple[str, int, Side], Reply] = {}
        self.reports = QualityReports(db)
        self.remembered = Remembered()
        self.in_force = CurrentSettings(db)
        self.reach_counts = ReachCounts()
        self.judged = itertools.count()
        # One thread for the votes of all annotators: more would only fight over the interpreter and the write lock.
        self.writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    def close(self) -> None:
        """Let the background threads finish and forget the loaded policy."""
        self.writer.shutdown(wait=True)
        self.filler.close()
        self.replies.forget()
        self.repliers.close()
        self.examiner.close()


class Services:
    """All acts, as one person may do them: ``LOCAL``, unless ``acting_as`` says another."""

    def __init__(self, home: Home, db: Database) -> None:
        self._shared = Shared(home, db)
        self._person = LOCAL

    def acting_as(self, person: Person | None) -> Services:
        """The acts as one person may do them: roles are checked and acts written down at every call.

        None is somebody who did not sign in: while there are no users that is ``LOCAL``, who may do everything.

        Raises:
            NotSignedIn: For None, once there are users.
        """
        if person is None and any_user(self._shared.db):
            raise NotSignedIn("Sign in first, or send a token: `Authorization: Bearer TOKEN`.")
        services = object.__new__(Services)
        services._shared = self._shared
        services._person = person or LOCAL
        return services

    @cached_property
    def labeling(self) -> Labeling:
        """Tasks, judgments, drafts, guidelines."""
        from studio.services.labeling import Labeling

        return Labeling(self._shared, self._person)

    @cached_property
    def pool(self) -> Pool:
        """What fills the pool of pairs."""
        from studio.services.prompts import Pool

        return Pool(self._shared, self._person)

    @cached_property
    def prompts(self) -> Prompts:
        """Prompts."""
        from studio.services.prompts import Prompts

        return Prompts(self._shared, self._person)

    @cached_property
    def datasets(self) -> Datasets:
        """What could be frozen, what was, and how it leaves."""
        from studio.services.datasets import Datasets

        return Datasets(self._shared, self._person)

    @cached_property
    def runs(self) -> Runs:
        """Background jobs."""
        from studio.services.runs import Runs

        return Runs(self._shared, self._person)

    @cached_property
    def policies(self) -> Policies:
        """Policies, the champion, win rates, replies on demand."""
        from studio.services.policies import Policies

        return Policies(self._shared, self._person)

    @cached_property
    def playground(self) -> Playground:
        """Chats with one policy, or with two side by side."""
        from studio.services.playground import Playground

        return Playground(self._shared, self._person)

    @cached_property
    def rounds(self) -> Rounds:
        """Recipes and the rounds that the worker carries out."""
        from studio.services.rounds import Rounds

        return Rounds(self._shared, self._person)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Benchmarks, comparisons, the gate."""
        return Evaluation(self._shared, self._person)

    @cached_property
    def review(self) -> Review:
        """Quality, acts on judgments, batches, disputes."""
        return Review(self._shared, self._person)

    @cached_property
    def users(self) -> Users:
        """Users, one's own account, the audit log."""
        from studio.services.users import Users

        return Users(self._shared, self._person)

    async def in_turn(self, act: Callable[..., T], *values: Any) -> T:
        """Do something short that writes, after what was asked for before it, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._shared.writer, act, *values)

    def close(self) -> None:
        """Let the background threads finish and forget the loaded policy."""
        self._shared.close()
