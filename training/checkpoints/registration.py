"""Make policies known: a base, a model of the hub, an endpoint, or what a run trained."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.store.models.bases import note_base_hash
from feedback.store.models.policies import get_policy, list_policies, promote_policy, save_policy
from feedback.tables import PolicyRow
from feedback.types import ENDPOINT_SCHEMES, Policy
from training.bundled import POLICY_IDS

if TYPE_CHECKING:
    from training.checkpoints.base_check import Examination


# A hub id: OWNER/NAME or a bare NAME, never beginning like a path.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LONGEST_ID = 200  # the hub's own limit is lower, and the file system's is not met
_PATH_STARTS = ("/", ".", "~")


def serve_model(db: Database, model: str) -> PolicyRow:
    """Make a policy the champion by its name, or register a model, as ``add_policy`` does, and promote that."""
    return promote_policy(db, find_or_add(db, model).id)


def find_or_add(db: Database, model: str) -> PolicyRow:
    """The policy of this name or id, else what ``add_policy`` makes of a model."""
    try:
        return get_policy(db, model)
    except NotFound:
        return add_policy(db, model)


@dataclass(frozen=True)
class Added:
    """A policy with what was examined of its base. No examination where none was made: of a server, or long ago."""

    policy: PolicyRow
    examination: Examination | None = None


def add_policy(db: Database, model: str, name: str | None = None) -> PolicyRow:
    """The policy that ``add_examined`` gives."""
    return add_examined(db, model, name).policy


def add_examined(db: Database, model: str, name: str | None = None) -> Added:
    """A policy over a base model: a hub id, a directory, or a server's address with ``#MODEL`` behind it.

    The one that is already there, when a model was added before and no other ``name`` is asked for. A base that is new
    is examined first, and refused with the first fault (``training.checkpoints.base_check``).
    """
    known = [row for row in list_policies(db) if row.checkpoint_id is None and row.can_reply]
    known = [row for row in known if name in (None, row.name)]
    for row in known:
        if row.is_endpoint and row.base == model:
            return Added(row)  # its server need not be up for that
    base = check_base(model)
    for row in known:
        if row.base == base:
            return Added(row)
    if base.startswith(ENDPOINT_SCHEMES):
        return Added(register_policy(db, name or policy_name(base), base))
    from training.checkpoints.base_check import examine_base

    examination = examine_base(base)
    own_id = POLICY_IDS.get(base) if name in (None, base) else None
    row = register_policy(db, name or policy_name(base), base, id=own_id)
    if examination.base_hash is not None:
        note_base_hash(db, row, examination.base_hash)
    return Added(row, examination)


def register_policy(db: Database, name: str, base: str, *, id: str | None = None) -> PolicyRow:
    """Register a base model under a name; the one registered meanwhile by another process, if it is the same.

    A policy trained on that base, or one of which only judgments were imported, is another. Conflict for a name that
    is taken.
    """
    try:
        return save_policy(db, Policy(name=name, base=base), id=id)
    except Conflict as error:
        taken = get_policy(db, name)
        if (taken.base, taken.checkpoint_id, taken.can_reply) == (base, None, True):
            return taken
        moved = f" If it is the same model in another place: `studio policies rebase {name} {shlex.quote(base)}`."
        raise Conflict(
            f"There is already another policy {name!r}: `studio policies add {shlex.quote(base)} --name NAME` gives "
            f"this one a name of its own.{moved if taken.can_reply and not taken.is_endpoint else ''}"
        ) from error


def check_base(model: str) -> str:
    """The base as it is stored: an absolute directory, a hub id or a server's address; InvalidInput for anything else.

    A server is asked whether it has the model; EndpointFailed when it does not answer.
    """
    if model.startswith(ENDPOINT_SCHEMES):
        from training.generation.endpoint import check_endpoint

        return check_endpoint(model)
    if model in POLICY_IDS:
        return model
    path = Path(model).expanduser()
    if path.is_dir():
        if not is_model_directory(path):
            raise InvalidInput(f"{path} is not a model: it has no config.json; name a Transformers model directory.")
        return str(path.resolve())
    if model.startswith(_PATH_STARTS) or model.count("/") > 1 or path.exists():
        raise InvalidInput(
            f"There is no model directory {model!r}; check the path, or give a Hugging Face id "
            "such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    if _HUB_ID.fullmatch(model) is None or "/" not in model:
        raise InvalidInput(
            f"{model!r} is neither a policy of this home, nor a model directory, nor a Hugging Face id such as "
            "Qwen/Qwen2.5-0.5B-Instruct, nor a server's address such as http://127.0.0.1:8000/v1#MODEL."
        )
    return model


def is_hub_id(model: str) -> bool:
    """Whether a model is named by the id of a Hugging Face repository, OWNER/NAME, and by no path that is here."""
    is_one = len(model) <= _LONGEST_ID and "/" in model and ".." not in model and _HUB_ID.fullmatch(model) is not None
    return is_one and not Path(model).exists()


def policy_name(base: str) -> str:
    """A usable name from a path, hub id or address: the last part of the model's, odd characters replaced."""
    model = base.partition("#")[2] if base.startswith(ENDPOINT_SCHEMES) else base
    last = model.rstrip("/").rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("._-")[:80]
    return name or "base-model"


def is_model_directory(path: Path) -> bool:
    """True for a directory that Transformers could load a model from."""
    return (path / "config.json").is_file()
