from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback import errors, types
from feedback.tables import JudgmentRow, PromptRow
from feedback.types import Judgment, Matchup, MatchupKind, Policy, PreferencePair, Prompt, content_hash


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_prompt_is_known_by_its_messages_alone() -> None:
    assert Prompt(messages=user("hi")).content_hash == Prompt(messages=user("hi"), tags=["x"]).content_hash
    assert Prompt(messages=user("hi")).content_hash != Prompt(messages=user("ho")).content_hash
    assert Prompt(messages=user("hi"), content_hash="forged").content_hash == content_hash(user("hi"))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "at least one"),
        (user("  "), "must not be empty"),
        ([*user("a"), {"role": "assistant", "content": "b"}], "last message must be the user's"),
        ([*user("a"), {"role": "system", "content": "b"}, *user("c")], "only come first"),
        ([{"role": "robot", "content": "b"}], "system"),
        ([{"role": "user", "content": "b", "name": "x"}], "name"),
    ],
)
def test_a_conversation_that_cannot_be_replied_to_is_refused(messages: list[dict[str, str]], reason: str) -> None:
    for make in (Prompt, PromptRow.model_validate):
        with pytest.raises(ValidationError, match=reason):
            make(messages=messages) if make is Prompt else make({"messages": messages})


def test_rows_validate_like_their_values() -> None:
    with pytest.raises(ValidationError, match="either a verdict or a ranking"):
        JudgmentRow.model_validate({"matchup_id": "m", "lease_id": "l", "annotator": "a"})


def test_a_judgment_gives_strength_only_to_a_preference() -> None:
    with pytest.raises(ValidationError, match="no meaning with the verdict 'tie'"):
        Judgment(matchup_id="m", lease_id="l", annotator="a", verdict="tie", strength=2)
    with pytest.raises(ValidationError, match="1, 2 or 3, not 4"):
        Judgment(matchup_id="m", lease_id="l", annotator="a", verdict="first", strength=4)


@pytest.mark.parametrize(
    ("ids", "kind", "reason"),
    [(["a"], "pair", "2 to 9"), (["a", "a"], "pair", "twice"), (["a", "b", "c"], "pair", "a pair holds 2")],
)
def test_matchups_hold_two_to_nine_different_replies(ids: list[str], kind: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Matchup(prompt_id="p", generation_ids=ids, kind=MatchupKind(kind))


def test_a_pair_never_prefers_a_text_to_itself() -> None:
    fields = {"prompt_id": "p", "matchup_id": "m", "messages": (), "chosen_generation": "g", "rejected_generation": "h"}
    with pytest.raises(ValidationError, match="must differ"):
        PreferencePair(chosen="same", rejected="same", judgment_ids=("j",), **fields)


@given(st.text(max_size=100))
def test_names_are_safe_in_commands_and_file_names(name: str) -> None:
    try:
        Policy(name=name, base="starter")
    except ValidationError:
        return
    assert name.isascii() and name[0].isalnum() and not set(name) & set("/\\ \n\t$'\"|&;<>*?~")


def test_errors_survive_pickling_and_keep_their_kind() -> None:
    for error in (
        errors.InvalidLine("f.jsonl", 3, "not JSON"),
        errors.NotFound("policy", "x", ["a", "b"], "Look."),
        errors.LeaseLost("gone"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error) and isinstance(copy, errors.StudioError)
    assert issubclass(errors.InvalidInput, ValueError) and issubclass(errors.NotFound, LookupError)
    assert str(errors.NotFound("policy", "x", ["a", "b"], "Look.")) == "There is no policy 'x'. Known: a, b. Look."


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_a_database_or_a_file_cannot_hold_is_refused_wherever_it_is_typed(text: str) -> None:
    """One such text in a frozen judgment would make every raw export of its dataset fail."""
    judgment = {"matchup_id": "m", "lease_id": "l", "annotator": "ann", "verdict": "first"}
    message = {"act": "message", "actor": "rev", "annotator": "ann"}
    refused: list[tuple[type, dict]] = [
        (types.Judgment, judgment | {"flag": text}),
        (types.Judgment, judgment | {"criteria": {text: [1, 2]}}),
        (types.Judgment, judgment | {"spans": [{"index": 0, "start": 0, "end": 1, "mark": "bad", "reason": text}]}),
        (types.Draft, {"matchup_id": "m", "annotator": "ann", "content": {"rationale": text}}),
        (types.Guidelines, {"text": text}),
        (types.Guidelines, {"text": "Be fair.", "criteria": [text]}),
        (types.Review, message | {"reason": text}),
        (types.Batch, {"name": "b", "note": text}),
        (types.Prompt, {"messages": [{"role": "user", "content": "Hello?"}], "tags": [text]}),
    ]
    for kind, fields in refused:
        with pytest.raises(ValueError, match="NUL|surrogate"):
            kind(**fields)
