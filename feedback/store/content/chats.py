"""Chats of the playground. Everybody finds their own alone."""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel import col, select

from feedback.chat_tables import ChatRow
from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from feedback.store.rows import as_row
from feedback.types import Chat, ChatTurn, now

TITLE_CHARACTERS = 80


def save_chat(db: Database, chat: Chat) -> ChatRow:
    """Keep a new chat."""
    row = as_row(ChatRow, chat)
    with db.write() as session:
        session.add(row)
    return row


def get_chat(db: Database, key: str, person: str) -> ChatRow:
    """A person's chat; NotFound for one of somebody else as for one that is not there."""
    with db.read() as session:
        row = session.get(ChatRow, key)
    if row is None or row.person != person:
        raise NotFound("chat", key, hint="Start a new one on the Playground.")
    return row


def list_chats(
    db: Database, person: str, *, search: str = "", archived: bool = False, limit: int = 50, offset: int = 0
) -> list[ChatRow]:
    """A person's chats that hold the words of ``search`` in this order, the one used last first."""
    query = (
        select(ChatRow)
        .where(ChatRow.person == person, col(ChatRow.archived).is_(archived))
        .order_by(col(ChatRow.updated_at).desc(), col(ChatRow.id))
        .limit(limit)
        .offset(offset)
    )
    if search.strip():
        query = query.where(col(ChatRow.words).icontains(search.strip(), autoescape=True))
    with db.read() as session:
        return list(session.exec(query))


def change_chat(db: Database, key: str, person: str, change: Callable[[Chat], None], *, words: str = "") -> ChatRow:
    """Change a person's chat as ``change`` says, in one transaction; ``words`` are added to what a search finds.

    Raises:
        NotFound: no such chat of this person.
        InvalidInput: the change breaks the rules of a chat; nothing is changed.
    """
    with db.write() as session:
        row = session.get(ChatRow, key, with_for_update=True)
        if row is None or row.person != person:
            raise NotFound("chat", key, hint="Start a new one on the Playground.")
        value = Chat.model_validate(row.model_dump(exclude={"id", "created_at"}))
        change(value)
        value.words = f"{value.words}\n{words}".strip()
        value.updated_at = now()
        for name, changed in as_row(ChatRow, value).model_dump(exclude={"id", "created_at"}).items():
            setattr(row, name, changed)
        return row


def add_turn(db: Database, key: str, person: str, text: str) -> ChatRow:
    """Add what a person says; the first words become the title. InvalidInput while a reply is still awaited."""

    def add(chat: Chat) -> None:
        said = chat.said
        if said and said[-1].left is None and said[-1].right is None:
            raise InvalidInput("The last message has no reply yet; wait for it, or ask for it again.")
        turn = ChatTurn(user=text)
        chat.turns = [*chat.turns, turn.model_dump(mode="json")]
        chat.title = chat.title or " ".join(turn.user.split())[:TITLE_CHARACTERS]

    return change_chat(db, key, person, add, words=text)


def change_turn(db: Database, key: str, person: str, index: int, *, words: str = "", **fields: object) -> ChatRow:
    """Set fields of one turn; NotFound for a turn that is not there."""

    def change(chat: Chat) -> None:
        if not 0 <= index < len(chat.turns):
            raise NotFound("turn", str(index))
        turns = [dict(turn) for turn in chat.turns]
        turns[index].update(fields)
        chat.turns = [ChatTurn.model_validate(turn).model_dump(mode="json") for turn in turns]

    return change_chat(db, key, person, change, words=words)
