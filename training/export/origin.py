"""What an export records of its policy: base, training, evaluations; no annotator names and no data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import InvalidInput, NotFound
from training.bundled import STARTER_BASE
from training.models.base_files import base_directory, local_directory

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from feedback.tables import PolicyRow
    from training.checkpoints.manifest import Manifest
    from training.home import Home

PROVENANCE_FILE = "provenance.json"
FORMAT_VERSION = 1
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]+$")
_LICENSE_FIELDS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Origin:
    """A policy with all that its card and its provenance record say.

    ``directory`` and ``manifest`` are those of its checkpoint, None for a bare base. ``lineage`` is as
    ``feedback.store.reports.lineage`` walks it. ``win_rates`` and ``gate`` are sentences.
    """

    policy: PolicyRow
    directory: Path | None
    manifest: Manifest | None
    lineage: dict[str, Any]
    win_rates: tuple[str, ...]
    gate: tuple[str, ...]
    base_name: str
    base_license: dict[str, str]

    @property
    def adapter_kind(self) -> str | None:
        """PEFT's name of the adapter; None for a bare base."""
        return self.manifest.adapter.kind if self.manifest else None

    def steps(self) -> Iterator[dict[str, Any]]:
        """The lineage, from the policy itself back to its base."""
        step: dict[str, Any] | None = self.lineage
        while step is not None:
            yield step
            step = step["parent"]


def find_origin(db: Database, home: Home, key: str) -> Origin:
    """Everything known of the policy with this id or name.

    Raises:
        NotFound: No policy has this key, or its base is gone.
        Conflict: It replies over HTTP, or only judgments of it were imported: there are no weights to export.
        CheckpointError: Its checkpoint is not there or cannot be read.
    """
    from feedback.store.models.policies import get_policy
    from feedback.store.reports.lineage import policy_lineage
    from training.checkpoints.manifest import read_manifest
    from training.checkpoints.opening import policy_directory

    row = get_policy(db, key)
    directory = policy_directory(db, home, row)
    return Origin(
        policy=row,
        directory=directory,
        manifest=read_manifest(directory) if directory else None,
        lineage=policy_lineage(db, row.id),
        win_rates=tuple(_win_rates(db, row)),
        gate=tuple(_gate(db, row)),
        base_name=name_of_base(row.base),
        base_license=license_of_base(row.base),
    )


def provenance(origin: Origin, form: str, checks: dict[str, Any]) -> dict[str, Any]:
    """The record that lies in the export as ``provenance.json``: what it was made of, and how it was checked."""
    from training.checkpoints.hashing import describe_base
    from training.checkpoints.manifest import library_versions

    step, manifest = origin.lineage, origin.manifest
    run, dataset, checkpoint = step["run"], step["dataset"], step["checkpoint"]
    return {
        "format_version": FORMAT_VERSION,
        "form": form,
        "policy": {"id": origin.policy.id, "name": origin.policy.name},
        "parent": step["parent"]["policy"]["name"] if step["parent"] else None,
        "base": {
            "name": origin.base_name,
            "hash": manifest.base_hash if manifest else describe_base(origin.policy.base),
        },
        "adapter": manifest.adapter.model_dump() if manifest else None,
        "checkpoint": {"id": checkpoint["id"], "name": checkpoint["name"], "files": manifest.files}
        if checkpoint and manifest
        else None,
        "run": {"id": run["id"], "method": run["method"]} if run else None,
        "dataset": {"id": dataset["id"], "name": dataset["name"], "hash": dataset["hash"]} if dataset else None,
        "checks": checks,
        "versions": library_versions(),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_provenance(directory: Path, record: dict[str, Any]) -> None:
    """Put the record into a directory."""
    (directory / PROVENANCE_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def name_of_base(base: str) -> str:
    """What a base is called where nobody has its path: its Hub id where one is certain, else its directory's name.

    A snapshot in the Hub's cache is of that id. What ``config.json`` names may be what the base was itself made from.
    """
    local = local_directory(base)
    if local is None or base == STARTER_BASE:
        return base
    snapshot = _SNAPSHOT.search(str(local.resolve()))
    return "/".join(snapshot.groups()) if snapshot else local.resolve().name


def license_of_base(base: str) -> dict[str, str]:
    """The fields ``license``, ``license_name`` and ``license_link`` of the base's own card; empty where it has none."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        found = metadata_load(base_directory(base) / "README.md") or {}
    except (OSError, ValueError, YAMLError, NotFound):
        return {}
    return {field: found[field] for field in _LICENSE_FIELDS if isinstance(found.get(field), str)}


def _win_rates(db: Database, row: PolicyRow) -> Iterator[str]:
    """The newest measurement by each judge over each opponent, in the order in which they speak."""
    from feedback.store.models.policies import list_policies
    from training.evaluation.standing import judge_of, win_rates

    names = {policy.id: policy.name for policy in list_policies(db)}
    told = set()
    for card in win_rates(db, row.id):
        figures, judge = card.figures, judge_of(card)
        shares = [figures.get(name) for name in ("win_rate", "low", "high")]
        if (card.against_id, judge) in told or "best_of" in figures or None in shares:
            continue
        told.add((card.against_id, judge))
        value, low, high = (f"{100 * share:.1f}" for share in shares)  # type: ignore[operator]
        by = f", judged by {judge}" if judge else ""
        against = names.get(card.against_id or "", "another policy")
        yield (
            f"{value} % [{low}, {high}] of comparisons with {against} on {figures.get('n_prompts', 0):,} held-out "
            f"prompts{by} (95 % interval)"
        )


def _gate(db: Database, row: PolicyRow) -> list[str]:
    """What the promotion gate says; nothing for a policy that has nobody to be measured against."""
    from training.evaluation.gate import in_words
    from training.evaluation.gate_evidence import decide_policy
    from training.evaluation.standing import opponent_of

    try:
        against = opponent_of(db, row)
    except InvalidInput:
        return []
    verdict, *reasons = in_words(decide_policy(db, row.id).as_json())
    return [f"{verdict}, measured against {against.name}", *(reason.strip() for reason in reasons)]
