"""Label Studio's tasks: two answers to a prompt, with one annotation per judge.

A preference is a *pairwise* result, ``left`` meaning ``answer1``; tie and both-bad, which that control lacks, are a
*choices* result beside it, strength a *rating*, a rationale a *textarea*; a skip is a cancelled annotation. The project
that shows such tasks:

    <View>
      <Text name="prompt" value="$prompt"/>
      <Text name="answer1" value="$answer1"/> <Text name="answer2" value="$answer2"/>
      <Pairwise name="preference" toName="answer1,answer2"/>
      <Choices name="neither" toName="prompt"><Choice value="tie"/><Choice value="both_bad"/></Choices>
      <Rating name="strength" toName="prompt" maxRating="3"/> <TextArea name="rationale" toName="prompt"/>
    </View>

Results are read by the names of these controls, since a project may have several of one type (a rating of fluency is
no strength, a note no rationale); what other controls say is counted as ignored. Only the one pairwise control of a
task may have another name. Judges are numbered, not named: in ``data.judges``, because Label Studio takes the
``completed_by`` of an annotation for one of its own users, and refuses a file that names others.

A file whose name ends in ``.json`` is one array, as Label Studio imports and exports; any other is one task per line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row, as_text, dropped_by_filters
from feedback.formats.base.importing import (
    IMPORTED,
    Incoming,
    LeftOut,
    Passed,
    Refused,
    ignored,
    messages_of,
    read_votes,
    short_name,
)
from feedback.formats.base.pairwise import PairOfReplies, judged_pairs
from feedback.store.datasets.exports import Messages, VoteRecord, list_dataset_annotators
from feedback.types import Verdict

_CONTROLS = {"pairwise": "preference", "choices": "neither", "rating": "strength", "textarea": "rationale"}
_DATA = ("prompt", "answer1", "answer2", "messages", "matchup", "judges")
# Label Studio's own bookkeeping of an annotation, which says nothing of the replies.
_BOOKKEEPING = (
    *("id", "unique_id", "import_id", "task", "project", "parent_prediction", "parent_annotation"),
    *("updated_at", "updated_by", "draft_created_at", "last_created_by", "last_action", "bulk_created", "result_count"),
)
_ANNOTATION = ("result", "was_cancelled", "completed_by", "created_at", *_BOOKKEEPING)
_SELECTED = {Verdict.first: "left", Verdict.second: "right"}
_SAID = {"left": Verdict.first, "right": Verdict.second, "tie": Verdict.tie, "both_bad": Verdict.both_bad}


def rows(export: Export) -> Iterator[Row]:
    """One task per two replies that somebody judged."""
    judges = {name: i for i, name in enumerate(list_dataset_annotators(export.db, export.dataset.id), 1)}
    number = 0
    for prompt in export.prompts():
        for pair in judged_pairs(prompt, export):
            number += 1
            yield {
                "id": number,
                "data": {
                    "prompt": as_text(prompt.messages),
                    "answer1": pair.texts[0],
                    "answer2": pair.texts[1],
                    "messages": prompt.messages,
                    "matchup": pair.id,
                    "judges": {vote.id: judges[vote.annotator] for _, vote in pair.votes},
                },
                "annotations": list(_annotations(number, pair)),
                "predictions": [],
            }


def _annotations(task: int, pair: PairOfReplies) -> Iterator[Row]:
    for place, (verdict, vote) in enumerate(pair.votes, start=1):
        yield {
            "id": task * 1000 + place,
            "was_cancelled": verdict is Verdict.skip,
            "ground_truth": False,
            "lead_time": None,
            "created_at": vote.at.isoformat(),
            "result": list(_results(verdict, vote)),
        }


def _results(verdict: Verdict, vote: VoteRecord) -> Iterator[Row]:
    def about(name: str, to: str, kind: str, value: Row) -> Row:
        return {"id": f"{vote.id}.{name}", "from_name": name, "to_name": to, "type": kind, "value": value}

    if verdict in _SELECTED:
        yield about("preference", "answer1,answer2", "pairwise", {"selected": _SELECTED[verdict]})
    elif verdict is not Verdict.skip:
        yield about("neither", "prompt", "choices", {"choices": [verdict.value]})
    if vote.strength is not None:
        yield about("strength", "prompt", "rating", {"rating": vote.strength})
    if vote.rationale:
        yield about("rationale", "prompt", "textarea", {"text": [vote.rationale]})


def read(db: Database, path: Path) -> dict[str, int]:
    """Every annotation as an imported judgment; tasks nobody annotated are left out and counted."""
    return read_votes(db, path, _incoming)


def _incoming(task: Row) -> Iterator[Incoming | Passed]:
    data = task["data"]
    if not isinstance(data, dict):
        raise Refused(f"data must be an object with prompt, answer1 and answer2, not {data!r:.80}")
    replies = (data["answer1"], data["answer2"])
    prompt = data.get("messages") or data["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else messages_of(prompt, "messages")
    if not all(isinstance(reply, str) for reply in replies):
        raise Refused("answer1 and answer2 must be texts")
    annotations = _objects(task.get("annotations") or [], "annotations")
    if not annotations:
        raise LeftOut("not_annotated")
    beside = {name: task.get(name) for name in ("predictions", "drafts", "meta")}
    extra = ignored(data, _DATA, "data.") + ignored(beside, ())
    for annotation in annotations:
        vote = _vote(messages, replies, annotation, data.get("judges"))
        if isinstance(vote, Incoming):
            vote, extra = replace(vote, counted=(*vote.counted, *extra)), ()  # what the task holds is counted once
        yield vote


def _objects(value: Any, name: str) -> list[Row]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Refused(f"{name} must be a list of objects, not {value!r:.80}")
    return value


def _vote(messages: Messages, replies: tuple[str, str], annotation: Row, judges: Any) -> Incoming | Passed:
    told = _objects(annotation.get("result") or [], "result")
    results = [result for result in told if isinstance(result.get("value"), dict)]
    said, counted = _said(results)
    counted += ignored({**annotation, "ground_truth": annotation.get("ground_truth") or None}, _ANNOTATION)
    verdict = Verdict.skip if annotation.get("was_cancelled") else _verdict(said)
    if isinstance(verdict, Passed):
        return verdict
    key = next((str(result["id"]) for result in results if result.get("id")), "")
    strength, odd = _strength(said, verdict)
    texts = said.get("rationale", {}).get("text") or []
    if not isinstance(texts, str | list):
        raise Refused(f"the text of a textarea must be a text or a list of texts, not {texts!r:.80}")
    return Incoming(
        messages,
        replies,
        verdict,
        strength=strength,
        annotator=_judge(annotation.get("completed_by"), key, judges),
        rationale="\n".join([texts] if isinstance(texts, str) else map(str, texts)) or None,
        skip_reason="skipped in Label Studio" if verdict is Verdict.skip else None,
        at=_moment(annotation.get("created_at")),
        key=key,
        counted=(*counted, *odd),
    )


def _said(results: list[Row]) -> tuple[dict[str, Row], list[str]]:
    """The values of an annotation by our names of their controls, and what is counted of other controls.

    A result that names no control is that of its type. The preference is the one pairwise result whatever its name,
    unless there are several, of which only ours is known.
    """
    said: dict[str, Row] = {}
    others: list[Row] = []
    for result in results:
        ours = _CONTROLS.get(str(result.get("type")))
        if ours is not None and result.get("from_name", ours) == ours:
            said[ours] = result["value"]
        else:
            others.append(result)
    pairwise = [result for result in others if result.get("type") == "pairwise"]
    if "preference" not in said and len(pairwise) == 1:
        said["preference"] = pairwise[0]["value"]
        others.remove(pairwise[0])
    names = [str(result.get("from_name") or result.get("type")) for result in others]
    return said, [reason for name in names for reason in ignored({name: True}, ())]


def _verdict(said: dict[str, Row]) -> Verdict | Passed:
    """What an annotation prefers, or the reason to pass over it."""
    preferred = said.get("preference", {}).get("selected")
    neither = said.get("neither", {}).get("choices") or []
    if not isinstance(neither, list):
        neither = [neither]
    if preferred is not None and neither:
        return Passed("contradictory")
    found = [preferred] if preferred is not None else neither
    if not found:
        return Passed("no_verdict")
    if len(found) != 1 or not isinstance(found[0], str) or found[0] not in _SAID:
        raise Refused(f"an annotation must say one of {', '.join(_SAID)}, not {', '.join(map(str, found))}")
    return _SAID[found[0]]


def _strength(said: dict[str, Row], verdict: Verdict) -> tuple[int | None, tuple[str, ...]]:
    """The strength of a preference; what is beyond 1 to 3 is another scale, and is counted instead."""
    given = said.get("strength", {}).get("rating")
    if given is None:
        return None, ()
    if verdict not in _SELECTED:
        return None, ("ignored_strength",)
    return (int(given), ()) if given in (1, 2, 3) and not isinstance(given, bool) else (None, ("strength_beyond_3",))


def _judge(completed_by: Any, key: str, judges: Any) -> str:
    """Who annotated: a user of Label Studio, else the judge that an export from here names for the vote."""
    if isinstance(judges, dict) and (number := judges.get(key.partition(".")[0])):
        return short_name(f"{IMPORTED}-{number}")
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("id") or completed_by.get("email")
    return short_name(f"{IMPORTED}-{completed_by}") if completed_by else IMPORTED


def _moment(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"created_at must be a moment as 2026-01-31T12:00:00Z, not {text!r}") from error


def as_array(lines: Iterable[str]) -> Iterator[str]:
    """The same tasks as one JSON array, still one to a line."""
    before = "[\n"
    for line in lines:
        yield before + line.rstrip("\n")
        before = ",\n"
    yield "\n]\n" if before != "[\n" else "[]\n"


FORMAT = Format(
    name="label-studio",
    sentence="Label Studio tasks with annotations; a file that ends in .json is the array it imports.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
    frames={".json": as_array},
)
