"""Where a base lies now: a model that was moved is found again by every policy and reward model that stands on it.

A base is named by its path, and known by its hash. The manifest of each checkpoint holds the hash of its base, and so
does the audit log for a base registered by itself: a new place is taken only where it holds the same model. What a
checkpoint's manifest says of the past stays as it was written.
"""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.files import atomic_write
from feedback.store.models.bases import BaseUse, list_bases, move_base, noted_base_hash
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import check_can_reply, check_has_weights, get_policy
from feedback.tables import CheckpointRow
from feedback.types import ENDPOINT_SCHEMES
from training.bundled import POLICY_IDS
from training.checkpoints.hashing import describe_base
from training.checkpoints.manifest import ADAPTER_CONFIG
from training.checkpoints.registration import check_base
from training.conversion.own_template import has_same_template, is_template_place, template_name
from training.home import Home
from training.models.base_files import cached_directory, local_directory

_SHOWN = 12  # characters of a hash


@dataclass(frozen=True)
class Rebased:
    """What follows a base to its new place, by name; ``left`` stands on another model that had the same path.

    ``proved`` says whether the hash of the model was known.
    """

    old: str
    new: str
    base_hash: str
    policies: tuple[str, ...]
    checkpoints: tuple[str, ...]
    left: tuple[str, ...]
    proved: bool

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def rebase(db: Database, home: Home, key: str, new: str, *, unproven: bool = False) -> Rebased:
    """Say where the base of a policy, or the base that lay at a path, lies now.

    It holds for every policy and checkpoint on that base. Raises InvalidInput where the new place holds another model,
    or where nothing recorded which model it was, unless ``unproven`` takes the caller's word; nothing is changed then.
    """
    use = _find(db, key)
    place = _new_place(new)
    if place == use.base:
        raise Conflict(f"The base {place} lies there already; nothing was changed.")
    if is_template_place(use.base):
        _refuse_other_template(use.base, place)
    found = describe_base(place)
    known = _hashes(db, use)
    proved = any(known.values())
    if not proved and not unproven:
        raise InvalidInput(
            f"Nothing recorded which model lay at {use.base!r}, so {place!r} cannot be proved to be the same: it was "
            "added by an earlier release and nothing was trained on it. If you know that it is, give --unproven."
        )
    fitting = {row for row, hashes in known.items() if found in hashes or not proved}
    if not fitting:
        expected = sorted({one for hashes in known.values() for one in hashes})
        raise InvalidInput(
            f"{place!r} is another model than the one at {use.base!r}: hash {_listed(expected)} expected, "
            f"{found[:_SHOWN]} found. Nothing was changed; name the place of the original."
        )
    policies = [row for row in use.policies if row.id in fitting]
    checkpoints = [row for row in use.checkpoints if row.id in fitting]
    move_base(db, place, [row.id for row in policies], [row.id for row in checkpoints])
    for row in checkpoints:
        _tell_adapters(home.path / row.path, use.base, place)
    left = [row.name for row in use.policies if row.id not in fitting]
    left += [row.name for row in use.checkpoints if row.id not in fitting]
    return Rebased(
        use.base,
        place,
        found,
        tuple(row.name for row in policies),
        tuple(row.name for row in checkpoints),
        tuple(dict.fromkeys(left)),
        proved,
    )


def missing_bases(db: Database) -> list[BaseUse]:
    """The bases that are named by a path at which no model lies."""
    return [use for use in list_bases(db).values() if not _is_there(use.base)]


def unfetched_bases(db: Database) -> list[BaseUse]:
    """The bases that are named by a hub id of which this machine has no copy."""
    uses = [use for use in list_bases(db).values() if _is_there(use.base) and use.base not in POLICY_IDS]
    return [use for use in uses if local_directory(use.base) is None and cached_directory(use.base) is None]


def remedy_for(missing: list[BaseUse]) -> str:
    """What to do about bases that are not where they were."""
    told = [f"`studio policies rebase {shlex.quote(use.base)} NEWPATH`" for use in missing[:4]]
    return f"Put them back, or say where they lie now: {', '.join(told)}."


def missing_in_words(missing: list[BaseUse]) -> str:
    """Which bases are missing, and who stands on each."""
    told = [f"{use.base} (of {', '.join(use.names[:4])}{', …' if len(use.names) > 4 else ''})" for use in missing[:4]]
    return f"no model lies at {'; '.join(told)}{'; …' if len(missing) > 4 else ''}"


def _is_there(base: str) -> bool:
    try:
        local_directory(base)
    except NotFound:
        return False
    return True


def _refuse_other_template(base: str, place: str) -> None:
    """InvalidInput unless a new place has the chat template that was chosen for the base."""
    name = template_name(Path(place))
    if name is None:
        raise InvalidInput(
            f"{base!r} has a chat template that was chosen for it, and {place!r} has not. Add that by "
            f"`studio policies add {shlex.quote(place)} --chat-template NAME`, and name the base of that policy here."
        )
    if not has_same_template(base, Path(place)):
        raise InvalidInput(
            f"{place!r} has the chat template {name!r}, or weights, that {base!r} does not have: replies would be "
            "drawn in another way than they were trained. Give `studio policies add` the template of then."
        )


def _find(db: Database, key: str) -> BaseUse:
    """What stands on the base that a policy, a checkpoint or a path names."""
    bases = list_bases(db)
    base = _base_of_row(db, key)
    if base is None:
        path = Path(key).expanduser()
        names = [key, str(path.absolute()), str(path.resolve())]
        base = next((name for name in names if name in bases), None)
    if base is None:
        hint = "Name a policy, or the path at which its base lay; `studio policies list --json` shows both."
        raise NotFound("policy or base", key, sorted(bases), hint)
    if base in POLICY_IDS:
        raise Conflict(f"The studio itself keeps {base} and knows its place; there is nothing to say about it.")
    return bases[base]


def _base_of_row(db: Database, key: str) -> str | None:
    try:
        policy = get_policy(db, key)
    except NotFound:
        try:
            return get_checkpoint(db, key).base
        except NotFound:
            return None
    check_can_reply(policy)
    check_has_weights(policy)
    return policy.base


def _new_place(new: str) -> str:
    if new.startswith(ENDPOINT_SCHEMES):
        raise InvalidInput(f"{new!r} is a server's address; name the directory, or the hub id, of the model's weights.")
    return check_base(new)


def _hashes(db: Database, use: BaseUse) -> dict[str, set[str]]:
    """By id of each policy and checkpoint on a base, the hashes that its base may have; none where nothing is known."""
    by_checkpoint = {row.id: {_hash_of(row)} - {""} for row in use.checkpoints}
    over_path = {one for hashes in by_checkpoint.values() for one in hashes}
    by_policy = {}
    for row in use.policies:
        noted = noted_base_hash(db, row) if row.checkpoint_id is None else None
        by_policy[row.id] = by_checkpoint.get(row.checkpoint_id or "", over_path) | ({noted} if noted else set())
    return {**by_checkpoint, **by_policy}


def _hash_of(row: CheckpointRow) -> str:
    return str(row.manifest.get("base_hash") or "")


def _tell_adapters(directory: Path, old: str, new: str) -> None:
    """Let plain PEFT find the base too, by the name that it keeps beside each adapter; the studio needs none of it."""
    for path in sorted(directory.rglob(ADAPTER_CONFIG)):
        with suppress(OSError, ValueError):
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.get("base_model_name_or_path") != old:
                continue
            with atomic_write(path) as file:
                file.write(json.dumps({**config, "base_model_name_or_path": new}, indent=2).encode())


def _listed(hashes: list[str]) -> str:
    return " or ".join(one[:_SHOWN] for one in hashes)
