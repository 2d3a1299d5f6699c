"""Datasets: freeze, list, export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from feedback.datasets.split_size import split_notes
from feedback.types import DatasetFilters
from studio.web.api.dependencies import Given
from studio.web.api.schemas import DatasetIn

router = APIRouter(prefix="/api")

_CHUNK_CHARACTERS = 64 * 1024


@router.post("/datasets", status_code=201, tags=["datasets"])
def freeze_dataset(body: DatasetIn, services: Given) -> dict[str, Any]:
    """Freeze the judgments that pass the filters; ``same_as`` names an older one that holds the same, or is null.

    ``notes`` say what the split came to where that is not what was asked for, or too little to measure anything on.
    """
    row = services.datasets.freeze(body.name.strip(), body.filters)
    return {
        "dataset_id": row.id,
        "name": row.name,
        "hash": row.hash,
        "counts": row.counts,
        "dropped": row.dropped,
        "same_as": services.datasets.twin_of(row),
        "notes": split_notes(row.counts, body.filters.test_share if body.filters else DatasetFilters().test_share),
    }


@router.get("/datasets", tags=["datasets"])
def list_datasets(services: Given) -> dict[str, Any]:
    """All datasets, newest first."""
    return {"datasets": [_dataset(row) for row in services.datasets.list_datasets()]}


@router.get("/datasets/{key}", tags=["datasets"])
def get_dataset(key: str, services: Given) -> dict[str, Any]:
    """One dataset by id or name."""
    return _dataset(services.datasets.get_dataset(key))


@router.get("/datasets/{key}/export", tags=["datasets"])
def export_dataset(
    key: str,
    services: Given,
    format_name: Annotated[str, Query(alias="format")] = "trl-preference",
    split: str | None = None,
) -> StreamingResponse:
    """A dataset, or its train or test side, streamed; ``X-Dropped`` tells what it left out and why."""
    export, chosen, lines = services.datasets.export(key, format_name, split)
    parts = (export.dataset.name, split, chosen.name, chosen.extension)
    name = ".".join(dict.fromkeys(part for part in parts if part))
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Dropped": json.dumps(services.datasets.count_dropped(key, format_name, split)),
        "X-Dataset-Hash": export.dataset.hash,
    }
    return StreamingResponse(_in_chunks(lines), media_type=chosen.media_type, headers=headers)


def _dataset(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "hash": row.hash,
        "counts": row.counts,
        "dropped": row.dropped,
        "filters": row.filters,
        "created_at": row.created_at.isoformat(),
    }


def _in_chunks(lines: Iterable[str]) -> Iterator[str]:
    """Lines gathered into larger pieces: each piece costs a hop between threads."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK_CHARACTERS:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)
