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
from training.bundled import PROMPTS_DIR, STARTER_BASE, STARTER_DIR
from training.checkpoints.registration import is_model_directory, register_policy

STARTER_NAME = "starter"
# The same id in every home, so that judgments of its replies can be moved from one to another.
STARTER_ID = "pol-starter"


@dataclass(frozen=True)
class FirstSteps:
    """What seeding found or made: how many prompts are there, and who serves (None without any policy)."""

    prompts: int
    champion: str | None


def seed_home(db: Database, *, prompts_dir: Path = PROMPTS_DIR, starter_dir: Path = STARTER_DIR) -> FirstSteps:
    """Give an empty home the bundled prompts and the starter policy; leave what is there alone."""
    if count_prompts(db) == 0:
        for path in sorted(prompts_dir.glob("*.jsonl")):
            save_prompts(db, read_prompts(path))
    if get_champion(db) is None and not list_policies(db) and is_model_directory(starter_dir):
        register_policy(db, STARTER_NAME, STARTER_BASE, id=STARTER_ID)
    champion = get_champion(db)
    if champion is None and any(policy.name == STARTER_NAME for policy in list_policies(db)):
        champion = promote_policy(db, STARTER_NAME)
    return FirstSteps(count_prompts(db), champion.name if champion else None)
