"""A home that was just made: prompts to work on, and a policy that serves.

Everything here may run twice, or in two processes at once, and ends the same: prompts are unique by content,
policies by name, and the champion is only named when there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.prompts import read_prompts
from feedback.store.content.prompts import count_prompts, save_prompts
from feedback.store.models.policies import get_champion, list_policies, promote_policy
from training.bundled import (
    ASSISTANT_PROMPTS_DIR,
    POLICY_IDS,
    PROMPTS_DIR,
    SMOLLM2_BASE,
    STARTER_BASE,
    STARTER_DIR,
)
from training.checkpoints.registration import is_model_directory, register_policy
from training.smollm2.convert import is_available_offline


@dataclass(frozen=True)
class FirstSteps:
    """What seeding found or made: how many prompts are there, and who serves (None without any policy)."""

    prompts: int
    champion: str | None


def seed_home(db: Database, *, policy: str | None = None, starter_dir: Path = STARTER_DIR) -> FirstSteps:
    """Give an empty home a policy and the prompts that suit it; leave what is there alone.

    ``policy`` is ``smollm2`` or ``starter``; left out, SmolLM2 where it is on this machine, else the starter. Its
    weights need not be converted yet: the first run that uses it does that.
    """
    first = policy or (SMOLLM2_BASE if is_available_offline() else STARTER_BASE)
    is_there = first == SMOLLM2_BASE or is_model_directory(starter_dir)
    if get_champion(db) is None and not list_policies(db) and is_there:
        register_policy(db, first, first, id=POLICY_IDS[first])
    champion = get_champion(db)
    if champion is None:
        mine = [row for row in list_policies(db) if row.id in POLICY_IDS.values()]
        champion = promote_policy(db, mine[0].id) if mine else None
    if count_prompts(db, retired=None) == 0:
        assistant = champion is not None and champion.base == SMOLLM2_BASE
        for path in sorted((ASSISTANT_PROMPTS_DIR if assistant else PROMPTS_DIR).glob("*.jsonl")):
            save_prompts(db, read_prompts(path))
    return FirstSteps(count_prompts(db), champion.name if champion else None)
