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
Recipe          how rounds are run: policy, prompts, annotators, methods, evaluation
Round           one pass of a recipe's loop: champion, matchups, judgments, dataset, runs, gate
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

from feedback.types.chats import Chat, ChatTurn, Side
from feedback.types.datasets import CUT_REPLY, Dataset, DatasetFilters, PreferencePair, Weighting
from feedback.types.labeling import (
    FOR_PEOPLE,
    MAX_MATCHUP_SIZE,
    MAX_PRIORITY,
    WORK_PURPOSES,
    Act,
    Batch,
    Checks,
    Draft,
    Guidelines,
    Judgment,
    JudgmentState,
    LeaseState,
    Matchup,
    MatchupKind,
    MatchupState,
    Part,
    Purpose,
    Review,
    ShownVerdict,
    Source,
    Verdict,
)
from feedback.types.people import AuditEvent, Credential, CredentialKind, User, UserRole, UserStatus
from feedback.types.policies import (
    CANNOT_REPLY,
    ENDPOINT_SCHEMES,
    Benchmark,
    BenchmarkItem,
    Checkpoint,
    Policy,
    Scorecard,
)
from feedback.types.prompts import (
    ASKED_HERE,
    CUT,
    Conversation,
    Generation,
    Message,
    Prompt,
    Role,
    SamplingSettings,
    Split,
    usable_stop,
)
from feedback.types.rounds import Recipe, RecipeState, Round, RoundState, first_state
from feedback.types.runs import MetricPoint, Run, RunState
from feedback.types.validation import (
    RESERVED_NAMES,
    canonical_json,
    content_hash,
    now,
    reject_bool,
    reject_unstorable_text,
    reject_unstorable_values,
    usable_name,
)

__all__ = [
    "ASKED_HERE",
    "CANNOT_REPLY",
    "CUT",
    "CUT_REPLY",
    "ENDPOINT_SCHEMES",
    "FOR_PEOPLE",
    "MAX_MATCHUP_SIZE",
    "MAX_PRIORITY",
    "RESERVED_NAMES",
    "WORK_PURPOSES",
    "Act",
    "AuditEvent",
    "Batch",
    "Benchmark",
    "BenchmarkItem",
    "Chat",
    "ChatTurn",
    "Checkpoint",
    "Checks",
    "Conversation",
    "Credential",
    "CredentialKind",
    "Dataset",
    "DatasetFilters",
    "Draft",
    "Generation",
    "Guidelines",
    "Judgment",
    "JudgmentState",
    "LeaseState",
    "Matchup",
    "MatchupKind",
    "MatchupState",
    "Message",
    "MetricPoint",
    "Part",
    "Policy",
    "PreferencePair",
    "Prompt",
    "Purpose",
    "Recipe",
    "RecipeState",
    "Review",
    "Role",
    "Round",
    "RoundState",
    "Run",
    "RunState",
    "SamplingSettings",
    "Scorecard",
    "ShownVerdict",
    "Side",
    "Source",
    "Split",
    "User",
    "UserRole",
    "UserStatus",
    "Verdict",
    "Weighting",
    "canonical_json",
    "content_hash",
    "first_state",
    "now",
    "reject_bool",
    "reject_unstorable_text",
    "reject_unstorable_values",
    "usable_name",
    "usable_stop",
]
