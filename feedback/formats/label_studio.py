"""Label Studio's tasks: two answers to a prompt, with one annotation per judge.

A preference is a *pairwise* result, ``left`` meaning ``answer1``; tie and both-bad, which that control lacks, are a
*choices* result beside it, strength a *rating*, a rationale a *textarea*; a skip is a cancelled annotation. Judges are
numbered, not named. The project that shows such tasks:

    <View>
      <Text name="prompt" value="$prompt"/>
      <Text name="answer1" value="$answer1"/> <Text name="answer2" value="$answer2"/>
      <Pairwise name="preference" toName="answer1,answer2"/>
      <Choices name="neither" toName="prompt"><Choice value="tie"/><Choice value="both_bad"/></Choices>
      <Rating name="strength" toName="prompt" maxRating="3"/> <TextArea name="rationale" toName="prompt"/>
    </View>

A file whose name ends in ``.json`` is one array, as Label Studio imports and exports; any other is one task per line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from feedback.db import Database
from feedback.formats.incoming import IMPORTED, Incoming, LeftOut, Refused, messages_of, read_votes
from feedback.formats.judged import PairOfReplies, judged_pairs
from feedback.formats.shape import Export, Format, Row, dropped_by_filters
from feedback.formats.trl_preference import as_text
from feedback.store.exports import VoteRecord, list_dataset_annotators
from feedback.types import Verdict

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
                },
                "annotations": list(_annotations(number, pair, judges)),
                "predictions": [],
            }


def _annotations(task: int, pair: PairOfReplies, judges: dict[str, int]) -> Iterator[Row]:
    for place, (verdict, vote) in enumerate(pair.votes, start=1):
        yield {
            "id": task * 1000 + place,
            "completed_by": judges[vote.annotator],
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


def _incoming(task: Row) -> list[Incoming]:
    data = task["data"]
    replies = (data["answer1"], data["answer2"])
    prompt = data.get("messages") or data["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else messages_of(prompt, "messages")
    if not all(isinstance(reply, str) for reply in replies):
        raise Refused("answer1 and answer2 must be texts")
    annotations = task.get("annotations") or []
    if not annotations:
        raise LeftOut("not_annotated")
    return [_vote(messages, replies, annotation) for annotation in annotations]


def _vote(messages: list[dict[str, str]], replies: tuple[str, str], annotation: Row) -> Incoming:
    results: list[Row] = annotation.get("result") or []
    values = {result["type"]: result["value"] for result in results}
    verdict = _verdict(annotation, values)
    judge = annotation.get("completed_by")
    return Incoming(
        messages,
        replies,
        verdict,
        strength=values["rating"]["rating"] if "rating" in values and verdict in _SELECTED else None,
        annotator=f"{IMPORTED}-{judge.get('id') if isinstance(judge, dict) else judge}" if judge else IMPORTED,
        rationale="\n".join(values["textarea"]["text"]) if "textarea" in values else None,
        skip_reason="skipped in Label Studio" if verdict is Verdict.skip else None,
        at=_moment(annotation.get("created_at")),
        key=str(results[0].get("id") or "") if results else "",
    )


def _verdict(annotation: Row, values: dict[str, Any]) -> Verdict:
    if annotation.get("was_cancelled"):
        return Verdict.skip
    said = [values["pairwise"]["selected"]] if "pairwise" in values else values.get("choices", {}).get("choices", [])
    if len(said) != 1 or said[0] not in _SAID:
        raise Refused(f"an annotation must say one of {', '.join(_SAID)}, not {', '.join(map(str, said)) or 'nothing'}")
    return _SAID[said[0]]


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
