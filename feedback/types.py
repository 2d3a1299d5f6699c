"""Every noun of the product as a validated value. This docstring is the glossary.

Prompt          a conversation waiting for a reply: ``messages`` of role and content
Generation      one reply, with the policy, sampling settings and seed that made it
Matchup         k >= 2 generations of one prompt put before people (a *pair* when k = 2)
Lease           one person's exclusive, expiring right to judge one matchup
Judgment        what that person said: a verdict on a pair or a ranking of k; revisions, never overwrites
Preference pair *chosen* over *rejected*, derived from judgments, never typed by hand
Remarks         what a judge adds beside the verdict: a rationale, an edit, marks, ratings, a flag
Draft           remarks and an unfinished ranking that are not yet submitted, kept as they are typed
Demonstration   a reply written or edited by a person
Guidelines      what a project asks of its annotators, in versions
Checks          how many tasks are gold or repeats, in versions
Dataset         an immutable, hashed snapshot of judgments and what was derived from them, split by prompt
Run             one background job: generate, train, evaluate, benchmark
Checkpoint      what a training run leaves: adapters, heads and a manifest
Policy          a checkpoint or a base model that can reply; the *champion* is the one that serves
Benchmark       what one policy scored on one task of the evaluation harness, item by item
Oracle          a simulated annotator; its judgments carry ``source=simulated`` for ever
User            a person with an account: annotator < reviewer < researcher < admin

Three vocabularies never mix: *left/right* (``ShownVerdict``) is what the screen showed, *first/second*
(``Verdict``) is stored order, *chosen/rejected* (``PreferencePair``) exists only after derivation.

Values here validate on construction; ``tables.py`` gives them identity. A value that is also a table must not
be frozen (a frozen parent breaks its table subclass), so only the purely derived ones are.
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from sqlmodel import SQLModel

from feedback.errors import InvalidInput

MAX_MATCHUP_SIZE = 9
MAX_PRIORITY = 1000
"""Runs and batches have a priority between minus this and this."""
ASKED_HERE = "asked-here"
"""The tag of prompts that came in with a request for replies: nobody meant them for the annotators."""
CANNOT_REPLY = "cannot reply here"
"""How the note of a policy ends of which only judgments came here."""
ENDPOINT_SCHEMES = ("http://", "https://")
"""What the base of a policy begins with when a server replies for it."""
RESERVED_NAMES = {"local", "shell", "studio", "nobody"}
"""Names that stand for nobody in particular and so cannot be a user's."""


def now() -> datetime:
    """The present moment, aware and in UTC: the only clock rows are written from."""
    return datetime.now(UTC)


def canonical_json(value: Any) -> str:
    """One spelling per value (sorted keys, no spaces, UTF-8), so that equal content hashes alike."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Role(StrEnum):
    system = "system"
    user = "user"
    assistant = "assistant"


class Split(StrEnum):
    """What a prompt may be used for; evaluation prompts never reach a training dataset."""

    work = "work"
    evaluation = "evaluation"


class Source(StrEnum):
    """Who is behind a judgment. ``simulated`` marks an oracle and is never removed."""

    human = "human"
    simulated = "simulated"
    imported = "imported"


class MatchupKind(StrEnum):
    pair = "pair"
    rank = "rank"


class MatchupState(StrEnum):
    """``disputed``: all the opinions it may have are in and no answer has most of them; a reviewer decides."""

    open = "open"
    satisfied = "satisfied"
    disputed = "disputed"
    adjudicated = "adjudicated"
    retired = "retired"


class Purpose(StrEnum):
    """What the judgments of a matchup are for. Only ``collect`` becomes training data.

    ``gold`` has a known answer and is put before everybody; ``repeat`` shows a person a pair of their own again,
    sides swapped. Neither differs from the others in anything an annotator is sent.
    """

    collect = "collect"
    evaluate = "evaluate"
    gold = "gold"
    repeat = "repeat"


class Part(StrEnum):
    """In which part a person judges: as one of the annotators, or as the adjudicator who settles a dispute."""

    annotator = "annotator"
    adjudicator = "adjudicator"


class Weighting(StrEnum):
    """How a dataset weighs its pairs: all alike, or by how far their annotators can be believed."""

    none = "none"
    reliability = "reliability"


class Act(StrEnum):
    """What a reviewer did about a judgment, a matchup or a person; each is a row that is never overwritten."""

    exclude = "exclude"
    restore = "restore"
    requeue = "requeue"
    message = "message"


class Verdict(StrEnum):
    """A judgment of a pair in stored order; ``skip`` says nothing about quality and counts nowhere."""

    first = "first"
    second = "second"
    tie = "tie"
    both_bad = "both_bad"
    skip = "skip"


class ShownVerdict(StrEnum):
    """A judgment of a pair as the screen showed it; the server alone maps it to ``Verdict``."""

    left = "left"
    right = "right"
    tie = "tie"
    both_bad = "both_bad"


class LeaseState(StrEnum):
    leased = "leased"
    submitted = "submitted"
    skipped = "skipped"
    released = "released"
    expired = "expired"


class JudgmentState(StrEnum):
    current = "current"
    superseded = "superseded"
    withdrawn = "withdrawn"
    excluded = "excluded"


class RunState(StrEnum):
    """The life of a run; the allowed steps between states are in ``training.runs``."""

    queued = "queued"
    starting = "starting"
    running = "running"
    stopping = "stopping"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"

    @property
    def is_terminal(self) -> bool:
        """True when nothing more happens by itself; an interrupted run waits for *resume*."""
        return self in {RunState.succeeded, RunState.failed, RunState.cancelled, RunState.interrupted}

    @property
    def is_active(self) -> bool:
        """True while a process is, or should be, working on the run."""
        return self in {RunState.starting, RunState.running, RunState.stopping}


class UserRole(StrEnum):
    """What a user may do: each role may do all that the ones before it may, and more."""

    annotator = "annotator"
    reviewer = "reviewer"
    researcher = "researcher"
    admin = "admin"

    def covers(self, needed: UserRole) -> bool:
        """True when this role may do what ``needed`` may."""
        order = list(UserRole)
        return order.index(self) >= order.index(needed)


class UserStatus(StrEnum):
    """A disabled user cannot get in; everything they judged stays."""

    active = "active"
    disabled = "disabled"


class CredentialKind(StrEnum):
    """What opens the studio for a user: a token in a script, a session in a browser."""

    token = "token"
    session = "session"


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    content: str

    @field_validator("content")
    @classmethod
    def _not_blank(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("content must not be empty")
        return storable(content, "content")


class Conversation(BaseModel):
    """A prompt's messages: a non-empty list that ends with something to reply to."""

    messages: list[Message]

    @model_validator(mode="after")
    def _awaits_reply(self) -> Conversation:
        if not self.messages:
            raise ValueError("messages must hold at least one message")
        if self.messages[-1].role is not Role.user:
            raise ValueError(f"the last message must be the user's, not the {self.messages[-1].role.value}'s")
        if any(message.role is Role.system for message in self.messages[1:]):
            raise ValueError("a system message may only come first")
        return self

    def plain(self) -> list[dict[str, str]]:
        """The messages as plain dictionaries, as stored and as chat templates want them."""
        return [{"role": message.role.value, "content": message.content} for message in self.messages]


class SamplingSettings(BaseModel):
    """How a reply is drawn; stored with every generation.

    ``top_k`` 0 and ``top_p`` 1 switch the filters off. ``max_new_tokens`` counts tokens of the reply only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 96

    @model_validator(mode="after")
    def _ranges(self) -> SamplingSettings:
        if not 0.0 <= self.temperature <= 5.0:
            raise ValueError(f"temperature must be between 0 and 5, not {self.temperature} (0 is greedy)")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 1 <= self.max_new_tokens <= 8192:
            raise ValueError(f"max_new_tokens must be between 1 and 8192, not {self.max_new_tokens}")
        return self


class Prompt(SQLModel):
    """A conversation waiting for a reply. ``content_hash`` is unique: the same prompt is stored once."""

    model_config = ConfigDict(validate_default=True)  # type: ignore[assignment]  # content_hash is always computed

    messages: list[dict[str, str]]
    split: Split = Split.work
    tags: list[str] = []
    content_hash: str = ""

    @field_validator("messages", mode="before")
    @classmethod
    def _valid_conversation(cls, messages: Any) -> list[dict[str, str]]:
        return Conversation.model_validate({"messages": messages}).plain()

    @field_validator("tags")
    @classmethod
    def _storable_tags(cls, tags: list[str]) -> list[str]:
        return [storable(tag, "a tag") for tag in tags]

    @field_validator("content_hash")
    @classmethod
    def _hash_of_messages(cls, _given: str, info: ValidationInfo) -> str:
        return content_hash(info.data.get("messages"))


CUT = "length"  # the finish reason of a reply that was cut
CUT_REPLY = "cut_reply"  # in a drop report: pairs that are kept although a reply of theirs was cut


class Generation(SQLModel):
    """One reply. ``finish_reason`` is ``stop`` when the model ended it, ``length`` when it was cut.

    ``seed`` with the prompt, the policy and ``sampling`` names the draw; ``tokens`` counts the reply alone.
    ``author`` names the person who wrote or edited it: they are never asked to judge it.
    """

    prompt_id: str
    policy_id: str
    text: str
    seed: int
    sampling: dict[str, Any] = {}
    finish_reason: str = "stop"
    tokens: int = 0
    run_id: str | None = None
    author: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the reply was cut at its length limit, so that it has no end."""
        return self.finish_reason == CUT

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a reply must not be empty")
        return storable(text, "a reply")


class Matchup(SQLModel):
    """k generations of one prompt put before people; ``generation_ids`` is the stored order.

    ``required`` judgments are asked for; while they give no answer most of the votes, one more is, up to
    ``max_required`` (0: never more). ``gold`` is the known answer of a gold matchup, ``repeat_of`` the matchup that a
    repeat shows again, ``reserved_for`` the one person it is for.
    """

    prompt_id: str
    generation_ids: list[str]
    kind: MatchupKind = MatchupKind.pair
    state: MatchupState = MatchupState.open
    required: int = 1
    priority: int = 0
    purpose: Purpose = Purpose.collect
    max_required: int = 0
    gold: dict[str, Any] | None = None
    repeat_of: str | None = None
    reserved_for: str | None = None
    batch_id: str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Matchup:
        size = len(self.generation_ids)
        if not 2 <= size <= MAX_MATCHUP_SIZE:
            raise ValueError(f"a matchup holds 2 to {MAX_MATCHUP_SIZE} generations, not {size}")
        if len(set(self.generation_ids)) != size:
            raise ValueError("a matchup must not hold the same generation twice")
        if self.kind is MatchupKind.pair and size != 2:
            raise ValueError(f"a pair holds 2 generations, not {size}")
        if self.required < 1:
            raise ValueError(f"a matchup needs at least 1 judgment, not {self.required}")
        if self.max_required and self.max_required < self.required:
            raise ValueError(f"max_required must be 0 or at least {self.required} (required), not {self.max_required}")
        if (self.purpose is Purpose.gold) != (self.gold is not None):
            raise ValueError("a gold matchup, and no other, carries its known answer in gold")
        if self.gold is not None:
            _known_answer(self.gold, self.kind, size)
        return self


class Judgment(SQLModel):
    """What one annotator said of one matchup, in stored order.

    A pair carries ``verdict``; a ranking carries ``ranking``, one rank per generation in stored order
    (1 = best, equal numbers tie). ``strength`` is 1 (slightly) to 3 (much better). ``shown_order`` holds the
    stored index shown at each place of the screen, left to right. What stands from ``edited`` on are the judge's
    remarks, see ``feedback.remarks``; ``active_ms`` is the time spent on it, idle time left out, and
    ``guidelines`` the version that was on the screen (0 = the product's own words). ``origin`` is what the file that an
    imported vote came from says of it beyond these fields.
    """

    matchup_id: str
    lease_id: str
    annotator: str
    source: Source = Source.human
    verdict: Verdict | None = None
    ranking: list[int] | None = None
    strength: int | None = None
    shown_order: list[int] = []
    skip_reason: str | None = None
    rationale: str | None = None
    edited: dict[str, Any] | None = None
    spans: list[dict[str, Any]] | None = None
    criteria: dict[str, list[int | None]] | None = None
    flag: str | None = None
    active_ms: int | None = None
    guidelines: int | None = None
    origin: dict[str, Any] | None = None
    revision: int = 1
    supersedes: str | None = None
    state: JudgmentState = JudgmentState.current
    part: Part = Part.annotator

    @model_validator(mode="after")
    def _says_one_thing(self) -> Judgment:
        if (self.verdict is None) == (self.ranking is None):
            raise ValueError("a judgment is either a verdict or a ranking")
        if self.strength is not None and self.strength not in (1, 2, 3):
            raise ValueError(f"strength must be 1, 2 or 3, not {self.strength}")
        for name in ("annotator", "skip_reason", "rationale", "flag"):
            storable(getattr(self, name) or "", name)
        storable(str((self.edited or {}).get("text") or ""), "the edited text")
        storable_throughout(self.spans, "a mark")
        storable_throughout(self.criteria, "a criterion")
        storable_throughout(self.origin, "origin")
        if self.strength is not None and self.verdict is None:
            raise ValueError("strength has no meaning with a ranking")
        if self.strength is not None and self.verdict in (Verdict.tie, Verdict.both_bad, Verdict.skip):
            raise ValueError(f"strength has no meaning with the verdict {self.verdict.value!r}")
        return self


class Draft(SQLModel):
    """What a person has typed or set about a matchup and not yet submitted, in stored order."""

    matchup_id: str
    annotator: str
    content: dict[str, Any] = {}

    @field_validator("content")
    @classmethod
    def _storable(cls, content: dict[str, Any]) -> dict[str, Any]:
        storable_throughout(content, "a draft")
        return content


class Guidelines(SQLModel):
    """One version of what a project asks of its annotators; a change is a new version.

    ``criteria`` are the qualities each reply may be rated on, 1 to 5; ``asks_rationale`` shows the field for a
    reason with every pair. Neither ever holds a vote back.
    """

    text: str
    criteria: list[str] = []
    asks_rationale: bool = False
    author: str = ""

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("guidelines must not be empty")
        if len(text) > 50_000:
            raise ValueError(f"guidelines may have 50000 characters, not {len(text)}")
        return storable(text.strip(), "guidelines")

    @field_validator("criteria")
    @classmethod
    def _few_and_distinct(cls, criteria: list[str]) -> list[str]:
        names = [name.strip() for name in criteria if name.strip()]
        if len(names) > 8 or len(set(names)) != len(names) or any(len(name) > 60 for name in names):
            raise ValueError("criteria are at most 8 different names of at most 60 characters")
        return [storable(name, "a criterion") for name in names]


class Checks(SQLModel):
    """How often a person is given a check in place of the next task, in versions as the guidelines are.

    ``gold_share`` of the tasks have a known answer, where there is any; ``repeat_share`` show a person one of their
    own again, sides swapped, ``repeat_after`` seconds later at the earliest. 0 switches a kind off. Gold should look
    like any other task and be certain (arXiv 2505.19134); two to five in a hundred repeats tell how steady a person
    is (arXiv 2502.06387).
    """

    gold_share: float = 0.05
    repeat_share: float = 0.03
    repeat_after: float = 60 * 60
    author: str = ""

    @field_validator("gold_share", "repeat_share")
    @classmethod
    def _is_a_minor_share(cls, share: float, info: ValidationInfo) -> float:
        if not 0.0 <= share <= 0.5:
            raise ValueError(f"{info.field_name} must be between 0 (off) and 0.5, not {share:g}")
        return share

    @field_validator("repeat_after")
    @classmethod
    def _is_a_delay(cls, seconds: float) -> float:
        if not 0 <= seconds <= 30 * 86_400:
            raise ValueError(f"repeat_after must be 0 to {30 * 86_400} seconds (30 days), not {seconds:g}")
        return seconds


class Batch(SQLModel):
    """A named part of the pool that shares purpose, priority and how many opinions each matchup gets."""

    name: str
    purpose: Purpose = Purpose.collect
    priority: int = 0
    required: int = 1
    max_required: int = 0
    note: str = ""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "batch")

    @model_validator(mode="after")
    def _ranges(self) -> Batch:
        if self.purpose not in (Purpose.collect, Purpose.evaluate):
            raise ValueError(f"a batch collects or evaluates; {self.purpose.value!r} matchups are made by themselves")
        if not 1 <= self.required <= 100:
            raise ValueError(f"required must be between 1 and 100, not {self.required}")
        if self.max_required and not self.required <= self.max_required <= 100:
            raise ValueError(f"max_required must be 0 or between {self.required} and 100, not {self.max_required}")
        storable(self.note, "a note")
        return self


class Review(SQLModel):
    """One act of a reviewer, with its reason: exclude or restore a judgment, requeue a matchup, message a person."""

    act: Act
    actor: str
    reason: str
    judgment_id: str | None = None
    matchup_id: str | None = None
    annotator: str | None = None

    @field_validator("reason")
    @classmethod
    def _said(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("a reason is needed: whoever reads this later must understand it")
        if len(reason) > 2_000:
            raise ValueError(f"a reason may have 2000 characters, not {len(reason)}")
        return storable(reason.strip(), "a reason")


class PreferencePair(BaseModel):
    """*chosen* over *rejected*: derived, never typed. ``margin`` is the mean strength, 0 when none was given.

    ``judgment_ids`` names the votes behind it; ``agreement`` is the share of decisive votes for *chosen*.
    ``weight`` (0 to 1) is how much a trainer should make of it; 1 unless the dataset weighs by reliability. A pair
    that came of an edit names its judgment in ``edited_by``: *chosen* is the edited text, and both generations are
    the one that was edited. ``chosen_cut`` and ``rejected_cut``: the reply was cut at its length limit and has no end.
    """

    model_config = ConfigDict(frozen=True)

    prompt_id: str
    matchup_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_generation: str
    rejected_generation: str
    judgment_ids: tuple[str, ...]
    margin: float = 0.0
    agreement: float = 1.0
    split: Literal["train", "test"] = "train"
    edited_by: str | None = None
    weight: float = 1.0
    chosen_cut: bool = False
    rejected_cut: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether either reply was cut."""
        return self.chosen_cut or self.rejected_cut

    @model_validator(mode="after")
    def _differ(self) -> PreferencePair:
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected must differ")
        return self


class DatasetFilters(BaseModel):
    """Which judgments a dataset takes, and how disagreement and ties are resolved.

    Ties never become pairs by default: TRL has no tie type, and a guess would invent a preference. ``weighting``
    ``reliability`` lets the annotator model of ``feedback.reliability`` decide disagreements and weigh each pair.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[Source, ...] = (Source.human, Source.simulated, Source.imported)
    annotators: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    min_agreement: float = 0.5
    test_share: float = 0.1
    split_seed: int = 0
    weighting: Weighting = Weighting.none

    @field_validator("min_agreement", "test_share", "split_seed", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        return number_not_truth(value)

    @field_validator("since", "until")
    @classmethod
    def _aware(cls, moment: datetime | None) -> datetime | None:
        """A moment without a zone is meant as local time, as a person types it."""
        return moment if moment is None else moment.astimezone(UTC)

    @model_validator(mode="after")
    def _ranges(self) -> DatasetFilters:
        if not 0.5 <= self.min_agreement <= 1.0:
            raise ValueError(f"min_agreement must be between 0.5 and 1, not {self.min_agreement}")
        if not 0.0 <= self.test_share <= 0.5:
            raise ValueError(f"test_share must be between 0 and 0.5, not {self.test_share}")
        return self


class Dataset(SQLModel):
    """An immutable snapshot. ``counts`` has judgments, pairs, train, test, prompts; ``dropped`` a count per reason."""

    name: str
    filters: dict[str, Any] = {}
    hash: str = ""
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "dataset")


class Policy(SQLModel):
    """A checkpoint or a base model that can reply. ``base`` is a local path, a hub id, or a server's address.

    ``checkpoint_id`` is None for a base model; ``parent_id`` is the policy it was trained from. The ``note`` of one
    that came with imported judgments, its weights left behind, ends with ``CANNOT_REPLY``.
    """

    name: str
    base: str
    checkpoint_id: str | None = None
    parent_id: str | None = None
    run_id: str | None = None
    note: str = ""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "policy")

    @property
    def is_endpoint(self) -> bool:
        """Whether it replies over HTTP: its base is the address of a server, and nothing here has its weights."""
        return self.base.startswith(ENDPOINT_SCHEMES)

    @property
    def can_reply(self) -> bool:
        """False for a policy known by name alone: its base without its checkpoint would be another policy."""
        return self.checkpoint_id is not None or not self.note.endswith(CANNOT_REPLY)


class Checkpoint(SQLModel):
    """What a training run left on disk. ``path`` is relative to the home; ``kind`` is policy or reward.

    ``removed_at`` tells when its weights were deleted to save space; the manifest is kept for ever.
    """

    name: str
    kind: Literal["policy", "reward"]
    path: str
    base: str
    run_id: str | None = None
    dataset_id: str | None = None
    parent_id: str | None = None
    manifest: dict[str, Any] = {}
    removed_at: datetime | None = None


class Run(SQLModel):
    """One background job. ``config`` is what was asked for; ``result`` what came of it.

    ``pid`` with ``pid_started`` (seconds since the epoch) names one process for ever; a pid alone is reused.
    ``after`` is the run that must have succeeded before this one begins; higher ``priority`` begins first.
    """

    method: str
    config: dict[str, Any] = {}
    state: RunState = RunState.queued
    priority: int = 0
    after: str | None = None
    attempt: int = 1
    progress: float = 0.0
    progress_text: str = ""
    error: str | None = None
    result: dict[str, Any] = {}
    pid: int | None = None
    pid_started: float | None = None
    host: str | None = None


class User(SQLModel):
    """A person with an account. ``name`` is the annotator of their judgments and never changes.

    ``password_hash`` is what ``studio.auth`` made of the password; None when there is none yet. ``pseudonym`` is
    drawn at random, so that an export that carries it cannot be turned back into the name.
    """

    name: str
    role: UserRole = UserRole.annotator
    status: UserStatus = UserStatus.active
    password_hash: str | None = None
    pseudonym: str = ""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if name.lower() in RESERVED_NAMES:
            raise InvalidInput(f"{name!r} cannot name a user: the studio uses it itself; choose another name")
        return usable_name(name, "user")


class Credential(SQLModel):
    """A token or a session of one user. Of its secret only ``secret_hash`` (SHA-256) is kept."""

    user_id: str
    kind: CredentialKind
    secret_hash: str
    expires_at: datetime | None = None
    ended_at: datetime | None = None


class AuditEvent(SQLModel):
    """Who did what to what. ``actor`` is a user's name, ``local`` without users, ``shell:NAME`` for the command."""

    actor: str
    verb: str
    subject: str = ""
    detail: dict[str, Any] = {}


class MetricPoint(BaseModel):
    """One point of one curve: the value of ``name`` at optimiser step ``step``."""

    model_config = ConfigDict(frozen=True)

    step: int
    name: str
    value: float


class Scorecard(SQLModel):
    """The outcome of an evaluation: policy A against policy B, or a reward model against held-out pairs.

    ``figures`` are the numbers; ``settings`` what they were measured with (prompts, judge, seed).
    """

    kind: Literal["win_rate", "reward_accuracy"]
    subject_id: str
    against_id: str | None = None
    run_id: str | None = None
    settings: dict[str, Any] = {}
    figures: dict[str, Any] = {}


class BenchmarkItem(BaseModel):
    """One item of a benchmark: its scores by metric, what was asked and what the policy said.

    ``item`` names the item in every policy's results, so that two of them can be compared item by item.
    """

    model_config = ConfigDict(frozen=True)

    item: str
    scores: dict[str, float]
    asked: str = ""
    answer: str = ""


class Benchmark(SQLModel):
    """What a policy scored on one task: the mean of each metric over ``n`` items, the task's main metric first.

    ``settings`` are what it was taken with (version of the task and of the harness, examples shown, limit, seed);
    ``higher_is_better`` names the direction of each metric.
    """

    policy_id: str
    task: str
    n: int
    means: dict[str, float]
    higher_is_better: dict[str, bool] = {}
    settings: dict[str, Any] = {}
    run_id: str | None = None

    @model_validator(mode="after")
    def _holds_figures(self) -> Benchmark:
        if self.n < 1 or not self.means:
            raise ValueError("a benchmark needs at least one item and one metric")
        if not all(math.isfinite(mean) for mean in self.means.values()):
            raise ValueError("every mean of a benchmark must be a finite number")
        return self


def storable(text: str, what: str) -> str:
    """The text, if every database can hold it: no NUL (PostgreSQL refuses it), no half of a surrogate pair (UTF-8)."""
    if "\0" in text:
        raise ValueError(f"{what} must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be whole Unicode characters; it holds half of a surrogate pair") from None
    return text


def storable_throughout(value: Any, what: str) -> None:
    """As ``storable``, for every text in nested lists and dictionaries, their keys included; JSON has no NaN either."""
    if isinstance(value, str):
        storable(value, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {value}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            storable_throughout(key, what)
            storable_throughout(inner, what)
    elif isinstance(value, list | tuple):
        for inner in value:
            storable_throughout(inner, what)


def number_not_truth(value: Any) -> Any:
    """The value, unless it is true or false: Python counts these as 1 and 0, and nobody means that by them."""
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, not {str(value).lower()}")
    return value


def usable_name(name: str, noun: str) -> str:
    """A name that can stand in a command and a file name, or an InvalidInput that says what can.

    Letters, digits, ``.``, ``_`` and ``-``, starting with a letter or digit, at most 80 characters.
    """
    plain = name.replace(".", "").replace("_", "").replace("-", "")
    if not name or len(name) > 80 or not name[0].isalnum() or not (plain.isascii() and plain.isalnum()):
        raise InvalidInput(
            f"{name!r} cannot name a {noun}: use up to 80 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return name


def _known_answer(gold: dict[str, Any], kind: MatchupKind, size: int) -> None:
    """Raise ValueError unless ``gold`` is an answer in stored order that this kind of matchup can have."""
    if kind is MatchupKind.pair:
        if set(gold) != {"verdict"} or gold["verdict"] not in (Verdict.first, Verdict.second, Verdict.tie):
            raise ValueError(f'the gold of a pair is {{"verdict": "first", "second" or "tie"}}, not {gold}')
    elif set(gold) != {"ranking"} or not isinstance(gold["ranking"], list) or len(gold["ranking"]) != size:
        raise ValueError(f'the gold of a ranking is {{"ranking": [{size} ranks in stored order]}}, not {gold}')
