"""Read a report of lm-evaluation-harness into scores per item."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from feedback.errors import InvalidInput, NotFound
from feedback.packed_files import read_objects
from feedback.types import Benchmark, BenchmarkItem

CLIP = 1000  # of a long prompt the end is kept, where the question stands


# What the harness reports --------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """The results of a report with their items, and the tasks whose items have no score."""

    results: list[tuple[Benchmark, list[BenchmarkItem]]]
    left_out: list[str]


def from_report(
    report: Mapping[str, Any],
    samples: Mapping[str, Iterable[Mapping[str, Any]]],
    policy_id: str,
    run_id: str | None = None,
) -> Taken:
    """Each task of a report as a result with its items; ``samples`` holds the harness's own samples by task.

    A task none of whose items has a score (where all there is is a perplexity, for instance) is left out; InvalidInput
    where that leaves nothing.
    """
    configs = report.get("configs") or {}
    items = {task: _items(logged, _summed_up_otherwise(configs.get(task) or {})) for task, logged in samples.items()}
    left_out = [task for task, found in items.items() if not found]
    if len(left_out) == len(items):
        named = ", ".join(left_out) or "The report"
        raise InvalidInput(f"{named} has no score of its items, so nothing can be compared item by item.")
    kept = {task: found for task, found in items.items() if found}
    return Taken([(_result(report, task, found, policy_id, run_id), found) for task, found in kept.items()], left_out)


def _result(
    report: Mapping[str, Any], task: str, items: Sequence[BenchmarkItem], policy_id: str, run_id: str | None
) -> Benchmark:
    config = (report.get("configs") or {}).get(task) or {}
    metadata = config.get("metadata") or {}
    asked = report.get("config") or {}
    settings = {
        "harness": f"lm-eval {report.get('lm_eval_version', '?')}",
        "version": (report.get("versions") or {}).get(task),
        "num_fewshot": (report.get("n-shot") or {}).get(task),
        "limit": asked.get("limit"),
        "seed": asked.get("fewshot_seed"),
        "margin": metadata.get("margin") if isinstance(metadata, Mapping) else None,
    }
    better = (report.get("higher_is_better") or {}).get(task) or {}
    names = _in_order(config, {name for item in items for name in item.scores})
    return Benchmark(
        policy_id=policy_id,
        run_id=run_id,
        task=task,
        n=len(items),
        means={name: fmean(item.scores[name] for item in items if name in item.scores) for name in names},
        higher_is_better={name: better.get(name.partition(",")[0]) is not False for name in names},
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _summed_up_otherwise(config: Mapping[str, Any]) -> set[str]:
    """Metrics of which an item's number is no score: a perplexity's is a log-likelihood, which points the other way."""
    listed = [one for one in config.get("metric_list") or [] if isinstance(one, Mapping)]
    aggregated = {str(one.get("metric")): str(one.get("aggregation", "")) for one in listed}
    return {"perplexity"} | {name for name, how in aggregated.items() if "perplexity" in how}


def _items(logged: Iterable[Mapping[str, Any]], left_out: Collection[str]) -> list[BenchmarkItem]:
    """The samples of a task, those of one item under several filters put together; none where no item has a score."""
    found: dict[str, BenchmarkItem] = {}
    repeats: Counter[tuple[str, str]] = Counter()
    for sample in logged:
        name, filtered = _name(sample), str(sample.get("filter", "none"))
        repeats[name, filtered] += 1
        name = f"{name}-{repeats[name, filtered]}"
        scores = _scores(sample, left_out, "" if filtered == "none" else f",{filtered}")
        before = found.get(name)
        found[name] = BenchmarkItem(
            item=name,
            scores={**(before.scores if before else {}), **scores},
            asked=_clipped(_arguments(sample)[0][0] if _arguments(sample) else ""),
            answer=before.answer if before and before.answer else _clipped(_answer(sample)),
        )
    items = list(found.values())
    return items if any(item.scores for item in items) else []


def _name(sample: Mapping[str, Any]) -> str:
    hashes = [str(sample.get(part, "")) for part in ("doc_hash", "prompt_hash", "target_hash")]
    if not all(hashes) or "metrics" not in sample:
        raise InvalidInput(
            "A sample lacks doc_hash, prompt_hash, target_hash or metrics: it comes of no lm-eval 0.4.7 or later."
        )
    given = json.dumps(_arguments(sample), sort_keys=True, default=str)
    return hashlib.sha256("/".join([*hashes, given]).encode("utf-8", "replace")).hexdigest()[:20]


def _scores(sample: Mapping[str, Any], left_out: Collection[str], suffix: str) -> dict[str, float]:
    """The sample's finite numbers; one that is none, as where an item does not count, is left out for that item."""
    plain = ((name, _plain(sample.get(name))) for name in sample["metrics"] if name not in left_out)
    return {
        f"{name}{suffix}": float(value)
        for name, value in plain
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _in_order(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The metrics as the task lists them, its main one first; under several filters those of the first one lead."""
    metrics = [str(one.get("metric")) for one in config.get("metric_list") or []]
    filters = [str(one.get("name")) for one in config.get("filter_list") or []]

    def place(name: str) -> tuple[int, int, str]:
        metric, _, filtered = name.partition(",")
        return (
            metrics.index(metric) if metric in metrics else len(metrics),
            filters.index(filtered) if filtered in filters else len(filters),
            name,
        )

    return sorted(names, key=place)


def _arguments(sample: Mapping[str, Any]) -> list[list[Any]]:
    """What the model was given, request by request: lists as they are reported, objects as they are written down."""
    given = sample.get("arguments") or []
    if isinstance(given, Mapping):
        given = [list(one.values()) for one in given.values()]
    return [list(one) for one in given if one]


def _answer(sample: Mapping[str, Any]) -> str:
    """What the model said, or which of the choices it found likeliest."""
    said = sample.get("filtered_resps") or []
    if said and isinstance(said[0], str):
        return str(said[0])
    likely = [_likelihood(one) for one in said]
    arguments = _arguments(sample)
    if len(likely) < 2 or len(likely) != len(arguments):
        return ""
    chosen = arguments[likely.index(max(likely))]
    return str(chosen[1]).strip() if len(chosen) > 1 else ""


def _likelihood(response: Any) -> float:
    first = response[0] if isinstance(response, Sequence) and not isinstance(response, str) and response else response
    try:
        return float(first)
    except (TypeError, ValueError):
        return -math.inf


def _clipped(text: Any) -> str:
    """The end of a long text, in characters that every database holds."""
    words = str(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return words if len(words) <= CLIP else "…" + words[1 - CLIP :]


# What the harness wrote to disk ----------------------------------------------------------------------------------


def read_report(path: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The report of ``lm_eval --output_path DIR --log_samples`` with its samples by task.

    ``path`` is the ``results_*.json`` file, or a folder whose newest one counts. InvalidInput says what is missing.
    """
    file = _report_file(path)
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        tasks = list(report["results"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInput(f"{file} is no report of lm-eval: it should be a results_*.json file.") from error
    moment = file.stem.removeprefix("results_")
    logged = {task: file.with_name(f"samples_{task}_{moment}.jsonl") for task in tasks}
    there = {task: samples for task, samples in logged.items() if samples.is_file()}
    if not there:
        raise InvalidInput(f"No samples lie beside {file.name}; run lm_eval with --log_samples.")
    return report, {task: [row for _, row in read_objects(file)] for task, file in there.items()}


def _report_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.rglob("results_*.json"), key=lambda file: file.stem) if path.is_dir() else []
    if not found:
        raise NotFound("report of lm-eval", str(path), [], hint="Name the results_*.json file or the folder it is in.")
    return found[-1]
