"""The playground's acts on a real database. Replies are drawn in tests/training/serving and tests/browser."""

from __future__ import annotations

import pytest

from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, NotAllowed, NotFound
from feedback.labeling import judging
from feedback.quality.report import report
from feedback.store.content import chats as chat_store
from feedback.store.content.generations import save_generations
from feedback.store.content.prompts import list_prompts, save_prompts
from feedback.types import (
    ASKED_HERE,
    DatasetFilters,
    Generation,
    JudgmentState,
    Prompt,
    Purpose,
    ShownVerdict,
    Side,
    Split,
    UserRole,
)
from studio.identity import Person
from studio.services.facade import Services
from studio.services.playground import TAG
from tests import factories
from tests.factories import get_matchup, list_judgments
from training.home import Home


def person(name: str, role: UserRole = UserRole.researcher) -> Person:
    return Person(name=name, role=role)


def replied(services: Services, chat_id: str, turn: int, **texts: str) -> None:
    """Keep replies as the end of a drawing does."""
    playground = services.playground
    chat = playground.get_chat(chat_id)
    messages = playground._conversation(chat, turn)
    saved = save_prompts(playground.db, [Prompt(messages=messages, tags=[ASKED_HERE])])
    for side, text in texts.items():
        policy = chat.left_id if side == "left" else chat.right_id
        (row,) = save_generations(
            playground.db, [Generation(prompt_id=saved.ids[0], policy_id=str(policy), text=text, seed=1)]
        )
        chat_store.change_turn(playground.db, chat_id, chat.person, turn, words=text, **{side: row.id})


def two_sided(services: Services, blind: bool = False) -> str:
    for name in ("one", "two"):
        factories.make_policy(services.playground.db, name)
    chat = services.playground.start("one", "two", blind=blind)
    services.playground.say(chat.id, "Hello there")
    replied(services, chat.id, 0, left="A left reply.", right="A right reply.")
    return chat.id


def test_a_vote_is_kept_with_its_purpose_and_stays_out_of_datasets(services: Services, db: Database) -> None:
    key = two_sided(services)
    chat = services.playground.prefer(key, 0, ShownVerdict.right, strength=2)
    turn = chat.said[0]
    assert (turn.verdict, turn.kept) == (ShownVerdict.right, Side.right)
    matchup = get_matchup(db, str(turn.matchup_id))
    (judgment,) = list_judgments(db)
    chosen = matchup.generation_ids[0 if judgment.verdict == "first" else 1]
    assert matchup.purpose is Purpose.playground and chosen == turn.right and judgment.strength == 2
    assert freeze.preview(db).pairs == []
    assert freeze.preview(db).dropped == {"purpose_playground": 1}
    (pair,) = freeze.preview(db, DatasetFilters(playground=True)).pairs
    assert (pair.chosen, pair.rejected) == ("A right reply.", "A left reply.")
    assert report(db).judgments == 0  # trying policies out is no annotation


def test_a_filter_that_is_not_used_changes_no_hash(services: Services, db: Database) -> None:
    factories.judge_by(db, factories.longer, annotator="ada", count=0)
    plain = freeze.dataset_hash(DatasetFilters(), freeze.preview(db))
    assert plain == freeze.dataset_hash(DatasetFilters(playground=False), freeze.preview(db))
    assert plain != freeze.dataset_hash(DatasetFilters(playground=True), freeze.preview(db))


def test_judged_again_the_last_judgment_counts(services: Services, db: Database) -> None:
    key = two_sided(services)
    services.playground.prefer(key, 0, ShownVerdict.right)
    services.playground.prefer(key, 0, ShownVerdict.left)
    states = [one.state for one in list_judgments(db)]
    assert sorted(states) == [JudgmentState.current, JudgmentState.superseded]
    (pair,) = freeze.preview(db, DatasetFilters(playground=True)).pairs
    assert pair.chosen == "A left reply."


def test_the_label_page_takes_no_vote_of_the_playground_back(services: Services, db: Database) -> None:
    key = two_sided(services)
    services.playground.prefer(key, 0, ShownVerdict.right)
    assert judging.undo_last(db, services.playground.person.name, session="any") is None
    assert [one.state for one in list_judgments(db)] == [JudgmentState.current]


def test_the_chat_goes_on_with_the_preferred_reply(services: Services, db: Database) -> None:
    key = two_sided(services)
    services.playground.prefer(key, 0, ShownVerdict.right)
    chat = services.playground.say(key, "And then?")
    assert [message["content"] for message in services.playground._conversation(chat, 1)] == [
        "Hello there", "A right reply.", "And then?",
    ]  # fmt: skip


def test_the_system_message_comes_first(services: Services) -> None:
    factories.make_policy(services.playground.db, "one")
    chat = services.playground.start("one", system="Be brief.")
    chat = services.playground.say(chat.id, "Hi")
    assert services.playground._conversation(chat, 0)[0] == {"role": "system", "content": "Be brief."}


def test_a_blind_chat_draws_its_sides_and_is_revealed_by_a_vote(services: Services) -> None:
    key = two_sided(services, blind=True)
    assert services.playground.get_chat(key).hides_names
    services.playground.prefer(key, 0, ShownVerdict.tie)
    assert not services.playground.get_chat(key).hides_names
    lefts = {services.playground.start("one", "two", blind=True).left_id for _ in range(40)}
    assert len(lefts) == 2
    with pytest.raises(InvalidInput, match="two policies"):
        services.playground.start("one", blind=True)


def test_an_edit_is_a_demonstration_that_is_preferred(services: Services, db: Database) -> None:
    factories.make_policy(db, "one")
    chat = services.playground.start("one")
    services.playground.say(chat.id, "Hello")
    replied(services, chat.id, 0, left="Badly said.")
    with pytest.raises(InvalidInput, match="as it was"):
        services.playground.edit(chat.id, 0, Side.left, "Badly said. ")
    changed = services.playground.edit(chat.id, 0, Side.left, "Well said.")
    reply = services.playground.replies(changed)[str(changed.said[0].left)]
    assert (reply.text, reply.author) == ("Well said.", services.playground.person.name)
    (pair,) = freeze.preview(db, DatasetFilters(playground=True)).pairs
    assert (pair.chosen, pair.rejected) == ("Well said.", "Badly said.")


def test_a_turn_is_sent_to_the_annotators(services: Services, db: Database) -> None:
    key = two_sided(services)
    row = services.playground.ask_annotators(key, 0)
    assert row is not None and row.purpose is Purpose.collect and row.state == "open"
    (prompt,) = list_prompts(db, split=Split.work)
    assert prompt.tags == [TAG]  # meant for people now, so that later fills draw for it too
    assert services.labeling.deck("s", "bob")[0].responses


def test_one_reply_sends_the_prompt_alone(services: Services, db: Database) -> None:
    factories.make_policy(db, "one")
    chat = services.playground.start("one")
    services.playground.say(chat.id, "A question")
    replied(services, chat.id, 0, left="An answer.")
    assert services.playground.ask_annotators(chat.id, 0) is None
    assert [row.messages[-1]["content"] for row in list_prompts(db, tags=[TAG])] == ["A question"]


def test_chats_are_ones_own_searched_and_taken_off_the_list(services: Services) -> None:
    factories.make_policy(services.playground.db, "one")
    ada, bob = (services.acting_as(person(name)).playground for name in ("ada", "bob"))
    first, second = ada.start("one"), ada.start("one")
    ada.say(first.id, "Über den Mond")
    ada.say(second.id, "50% of_all")
    assert [row.id for row in ada.list_chats()] == [second.id, first.id]
    assert [row.id for row in ada.list_chats("den mond")] == [first.id]
    assert [row.id for row in ada.list_chats("50% of_")] == [second.id]
    assert ada.list_chats("%%") == [] and bob.list_chats() == []
    with pytest.raises(NotFound):
        bob.get_chat(first.id)
    ada.archive(first.id)
    assert [row.id for row in ada.list_chats()] == [second.id]
    assert [row.id for row in ada.list_chats(archived=True)] == [first.id]
    ada.archive(first.id, archived=False)
    assert ada.list_chats()[0].id == first.id


def test_what_cannot_be_done_is_said(services: Services) -> None:
    playground = services.playground
    factories.make_policy(playground.db, "one")
    chat = playground.start("one")
    with pytest.raises(InvalidInput, match="write something"):
        playground.say(chat.id, "  ")
    playground.say(chat.id, "Hello")
    with pytest.raises(InvalidInput, match="no reply yet"):
        playground.say(chat.id, "Hello?")
    with pytest.raises(InvalidInput, match="Two replies"):
        playground.prefer(chat.id, 0, ShownVerdict.left)
    with pytest.raises(InvalidInput, match="one policy"):
        playground.reply(chat.id, 0, Side.right)
    with pytest.raises(Conflict, match="last message"):
        playground.reply(chat.id, 3, Side.left)
    with pytest.raises(InvalidInput, match="seed"):
        playground.reply(chat.id, 0, Side.left, -1)
    with pytest.raises(InvalidInput, match="temperature"):
        playground.start("one", sampling={"temperature": 9})
    with pytest.raises(NotFound):
        playground.start("nobody")


def test_annotators_and_reviewers_have_no_playground(services: Services) -> None:
    for role in (UserRole.annotator, UserRole.reviewer):
        with pytest.raises(NotAllowed):
            services.acting_as(person("eve", role)).playground.list_chats()


@pytest.mark.slow
def test_a_reply_that_nobody_heard_can_be_asked_for_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(home, home.open())  # the process opens the database of the home
    playground = services.playground
    factories.make_policy(playground.db, "starter")
    chat = playground.start("starter", sampling={"max_new_tokens": 8})
    playground.say(chat.id, "Hello")
    playground.reply(chat.id, 0, Side.left)  # its client left before it heard a line
    with pytest.raises(Conflict, match="being written"):
        playground.reply(chat.id, 0, Side.left)
    monkeypatch.setattr("studio.services.playground.LEFT_SECONDS", -1.0)
    again = playground.reply(chat.id, 0, Side.left)
    assert "done" in list(again.events())[-1]
    again.close()
    assert not playground.shared.drawing
    services.close()
    playground.db.dispose()
