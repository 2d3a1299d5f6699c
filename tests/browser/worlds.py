"""What the labeling screen's tests look at: one of each kind of task, in the order they are shown."""

from __future__ import annotations

from sqlalchemy import delete, update

from feedback.database.engine import Database
from feedback.store.content import prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.tables import GuidelinesRow, LeaseRow, MatchupRow
from feedback.types import LeaseState, Matchup, MatchupKind, MatchupState, Prompt
from tests import factories

FORMATTED = r"""# Binary search

It halves the range **each step**, so it needs $\log_2 n$ comparisons:

1. Look at the middle.
2. Go left or right.

```python
def find(a, x):
    lo, hi = 0, len(a)  # a long line, so that the code has to scroll sideways on a narrow screen, and only the code
```

$$T(n) = T\left(\frac{n}{2}\right) + O(1)$$

| case | steps |
|------|-------|
| best | 1 |

See [the page](https://example.invalid/x) and ![a picture](https://example.invalid/y.png)."""
CONVERSATION = [
    {"role": "system", "content": "You teach programming."},
    {"role": "user", "content": "What is a sorted list?"},
    {"role": "assistant", "content": "A list whose items go from small to large."},
    {"role": "user", "content": "And how do I search in one?"},
]


def empty_pool(db: Database) -> None:
    """Take every waiting task and every lease away, and let the product's own guidelines stand again."""
    with db.write() as session:
        session.execute(update(MatchupRow).values(state=MatchupState.retired))
        session.execute(update(LeaseRow).where(LeaseRow.state == LeaseState.leased).values(state=LeaseState.released))
        session.execute(delete(GuidelinesRow))


def put(db: Database, texts: list[str], ask: str | list[dict[str, str]] = "Tell me.") -> MatchupRow:
    """One task in the pool: a pair of two texts, a ranking of more."""
    policy = policies.get_champion(db) or policies.promote_policy(db, factories.make_policy(db, "author-of-all").id)
    messages = ask if isinstance(ask, list) else [{"role": "user", "content": ask}]
    prompt_id = prompts.save_prompts(db, [Prompt(messages=messages)]).ids[0]
    rows = factories.make_generations(db, factories.get_prompt(db, prompt_id), policy, texts)
    kind = MatchupKind.pair if len(texts) == 2 else MatchupKind.rank
    value = Matchup(prompt_id=prompt_id, generation_ids=[row.id for row in rows], kind=kind)
    return matchups.save_matchups(db, [value])[0]


def put_pairs(db: Database, count: int) -> None:
    """Plain pairs, each with a request of its own."""
    for number in range(count):
        put(db, [f"Reply {number} says one thing.", f"Reply {number} says another."], f"Request {number}?")


def put_all_kinds(db: Database) -> None:
    """Formatted and multi-turn, right-to-left, nearly equal, five and nine to rank, then plain ones."""
    put(db, [FORMATTED, "It is a *method*.\n\n> Sort first.\n\n- Left half\n- Right half"], CONVERSATION)
    put(db, ["مرحبا بك في المدينة القديمة.\nThis line is English.", "אהלן, ברוך הבא לעיר."], "رحب بزائر.")
    put(db, ["The lake is calm, and the boat waits.", "The lake is calm and a boat waits here."], "About a lake?")
    put(db, [f"Answer {n}: " + "it goes on like this. " * (2 * n + 1) for n in range(5)], "Why walk?")
    put(db, [f"Slogan number {n}" for n in range(9)], "A slogan?")
    put_pairs(db, 6)
