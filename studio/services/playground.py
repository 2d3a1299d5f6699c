"""The playground: chats with one policy or with two side by side; replies can be judged, edited and passed on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from feedback.chat_tables import ChatRow
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.labeling import judging
from feedback.store.content import chats as chat_store
from feedback.store.content.generations import list_generations, save_generations
from feedback.store.content.prompts import save_prompts
from feedback.store.labeling.leases import lease_again, lease_pair
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models.policies import check_can_reply, get_policy
from feedback.store.rows import value_of
from feedback.tables import GenerationRow, MatchupRow
from feedback.types import (
    ASKED_HERE,
    CUT,
    Chat,
    ChatTurn,
    Generation,
    Matchup,
    Prompt,
    Purpose,
    SamplingSettings,
    ShownVerdict,
    Side,
    UserRole,
    now,
)
from studio.background.reply_processes import Replying
from studio.services.access import Acts, act
from training.serving.messages import Event

TAG = "playground"
"""Of prompts that were sent to the annotators from here."""
SEEDS = 2**31
LEASE = timedelta(minutes=5)
LEFT_SECONDS = 10.0
"""Whoever listens to a reply hears something far more often (``reply_processes.BEAT_SECONDS``)."""
PRIORITY = 10
"""Of pairs that somebody sent to the annotators: before the usual pool."""


@dataclass
class Reply:
    """A reply being drawn on one side of a turn; ``events`` ends with ``done`` or ``error``."""

    playground: Playground
    chat: ChatRow
    turn: int
    side: Side
    seed: int
    replying: Replying
    heard_at: float = field(default_factory=time.monotonic)

    @property
    def is_left(self) -> bool:
        """Whether nobody has listened for a while: a client may leave before it hears the first line."""
        return time.monotonic() - self.heard_at > LEFT_SECONDS

    def events(self) -> Iterator[Event]:
        """The events of the reply; it is saved before the last event."""
        for event in self.replying.events():
            self.heard_at = time.monotonic()
            if "reply" in event:
                yield self.playground._keep(self, event["reply"])
            else:
                yield event

    def stop(self) -> None:
        """End it; the text so far is saved."""
        self.replying.stop()

    def close(self) -> None:
        """Nobody listens any more: an unfinished reply is ended and not saved."""
        self.replying.close()
        place = (self.chat.id, self.turn, self.side)
        if self.playground.shared.drawing.get(place) is self:
            del self.playground.shared.drawing[place]


class Playground(Acts):
    """Acts on one's own chats; nobody sees those of others."""

    @act(UserRole.researcher)
    def list_chats(
        self, search: str = "", *, archived: bool = False, limit: int = 50, offset: int = 0
    ) -> list[ChatRow]:
        """One's own chats that hold these words, the one used last first."""
        return chat_store.list_chats(
            self.db, self.person.name, search=search, archived=archived, limit=limit, offset=offset
        )

    @act(UserRole.researcher)
    def get_chat(self, key: str) -> ChatRow:
        """One of one's own chats."""
        return chat_store.get_chat(self.db, key, self.person.name)

    @act(UserRole.researcher)
    def replies(self, chat: ChatRow) -> dict[str, GenerationRow]:
        """The replies of a chat by their ids."""
        ids = [key for turn in chat.said for side in Side if (key := turn.reply_of(side)) is not None]
        return {row.id: row for row in list_generations(self.db, ids=ids)} if ids else {}

    @act(UserRole.researcher)
    def start(
        self,
        left: str,
        right: str | None = None,
        *,
        blind: bool = False,
        system: str = "",
        sampling: dict[str, Any] | None = None,
    ) -> ChatRow:
        """Start a chat; with ``blind`` chance decides which of the two policies is on which side."""
        rows = [get_policy(self.db, key) for key in (left, right) if key]
        for row in rows:
            check_can_reply(row)
        if blind and len(rows) < 2:
            raise InvalidInput("A blind chat needs two policies: choose the second one.")
        if blind and secrets.randbelow(2):
            rows.reverse()
        settings = value_of(SamplingSettings, **(sampling or {}))  # type: ignore[type-var]
        return chat_store.save_chat(
            self.db,
            value_of(
                Chat,
                person=self.person.name,
                left_id=rows[0].id,
                right_id=rows[1].id if len(rows) > 1 else None,
                blind=blind,
                system=system,
                sampling=settings.model_dump(),
            ),
        )

    @act(UserRole.researcher)
    def preload(self, *policies: str) -> None:
        """Load policies before the first message is written, so that the first reply begins at once."""
        for key in policies:
            self.shared.repliers.load(key, beside=policies)

    @act(UserRole.researcher)
    def say(self, key: str, text: str) -> ChatRow:
        """Add what one says to a chat."""
        value_of(ChatTurn, user=text)  # type: ignore[type-var]
        return chat_store.add_turn(self.db, key, self.person.name, text)

    @act(UserRole.researcher)
    def set_sampling(self, key: str, sampling: dict[str, Any]) -> ChatRow:
        """Draw the next replies of a chat in another way."""
        settings = value_of(SamplingSettings, **sampling)  # type: ignore[type-var]

        def change(chat: Chat) -> None:
            chat.sampling = settings.model_dump()

        return chat_store.change_chat(self.db, key, self.person.name, change)

    @act(UserRole.researcher)
    def reply(self, key: str, turn: int, side: Side, seed: int | None = None) -> Reply:
        """Begin to draw a reply on one side of the last turn, in place of the one that is there.

        Raises:
            Conflict: that side is replying already, or the turn is not the last.
            Unavailable: the policy cannot be loaded now.
        """
        chat = self.get_chat(key)
        policy = chat.left_id if side is Side.left else chat.right_id
        if policy is None:
            raise InvalidInput("This chat has one policy, which replies on the left.")
        if turn != len(chat.turns) - 1:
            raise Conflict("Only the last message of a chat is replied to; start another chat to go another way.")
        place = (chat.id, turn, side)
        if (earlier := self.shared.drawing.get(place)) is not None:
            if not earlier.is_left:
                raise Conflict("This reply is being written already.")
            earlier.close()
        drawn = secrets.randbelow(SEEDS) if seed is None else seed
        if not 0 <= drawn < SEEDS:
            raise InvalidInput(f"A seed is a whole number from 0 to {SEEDS - 1}, not {drawn}.")
        process = self.shared.repliers.load(policy, beside=[one for one in (chat.left_id, chat.right_id) if one])
        replying = process.ask(self._conversation(chat, turn), SamplingSettings(**chat.sampling), drawn)
        begun = Reply(self, chat, turn, side, drawn, replying)
        if self.shared.drawing.setdefault(place, begun) is not begun:  # asked for twice at once
            begun.close()
            raise Conflict("This reply is being written already.")
        return begun

    @act(UserRole.researcher)
    def stop(self, key: str) -> int:
        """End every reply of a chat that is being drawn; how many there were."""
        chat = self.get_chat(key)
        under_way = [one for (chat_id, *_), one in list(self.shared.drawing.items()) if chat_id == chat.id]
        for one in under_way:
            one.stop()
        return len(under_way)

    @act(UserRole.researcher, audit="playground.prefer", about="key", detail="verdict")
    def prefer(self, key: str, turn: int, verdict: ShownVerdict, strength: int | None = None) -> ChatRow:
        """Judge the two replies of a turn; a blind chat names its policies from then on.

        The preferred reply is the one that the chat goes on with. Judged again, the last judgment counts.
        """
        chat = self.get_chat(key)
        said = _turn(chat, turn)
        if said.left is None or said.right is None:
            raise InvalidInput("Two replies are needed to prefer one; wait until both are there.")
        until = now() + LEASE
        if said.matchup_id is None:
            lease = lease_pair(
                self.db, [said.left, said.right], self.person.name, purpose=Purpose.playground, expires_at=until
            )
        else:
            lease = lease_again(self.db, said.matchup_id, self.person.name, expires_at=until)
        judging.submit(self.db, lease.id, self.person.name, verdict=verdict, strength=strength)
        kept = Side.right if verdict is ShownVerdict.right else Side.left
        self._reveal(chat)
        return chat_store.change_turn(
            self.db, chat.id, self.person.name, turn, verdict=verdict, matchup_id=lease.matchup_id, kept=kept
        )

    @act(UserRole.researcher)
    def reveal(self, key: str) -> ChatRow:
        """Name the policies of a blind chat without judging."""
        return self._reveal(self.get_chat(key))

    @act(UserRole.researcher, audit="playground.edit", about="key")
    def edit(self, key: str, turn: int, side: Side, text: str) -> ChatRow:
        """Put a demonstration in the place of a reply: the chat goes on with it, and it is preferred to the reply."""
        chat = self.get_chat(key)
        said = _turn(chat, turn)
        before = said.reply_of(side)
        if before is None:
            raise InvalidInput("There is no reply to edit yet.")
        reply = self.replies(chat)[before]
        if text.strip() == reply.text.strip():
            raise InvalidInput("The text is the reply as it was; change it first.")
        edited = value_of(
            Generation,
            prompt_id=reply.prompt_id,
            policy_id=reply.policy_id,
            text=text.strip(),
            seed=reply.seed,
            sampling=reply.sampling,
            author=self.person.name,
        )
        (row,) = save_generations(self.db, [edited])
        lease = lease_pair(
            self.db, [row.id, before], self.person.name, purpose=Purpose.playground, expires_at=now() + LEASE
        )
        judging.submit(self.db, lease.id, self.person.name, verdict=ShownVerdict.left)
        fields: dict[str, Any] = {side.value: row.id, "kept": side, "matchup_id": None, "verdict": None}
        return chat_store.change_turn(self.db, chat.id, self.person.name, turn, words=row.text, **fields)

    @act(UserRole.researcher, audit="playground.ask_annotators", about="key")
    def ask_annotators(self, key: str, turn: int) -> MatchupRow | None:
        """Send a turn to the annotators: its two replies as a pair that comes next; with one reply, the prompt alone.

        Returns the pair; None where only the prompt was sent, for which replies are drawn with the next fill.
        """
        chat = self.get_chat(key)
        said = _turn(chat, turn)
        saved = save_prompts(self.db, [Prompt(messages=self._conversation(chat, turn), tags=[TAG])])
        if said.left is None or said.right is None:
            return None
        texts = {row.text.strip() for row in list_generations(self.db, ids=[said.left, said.right])}
        if len(texts) < 2:
            raise InvalidInput("Both replies say the same: there is nothing to choose between.")
        pair = Matchup(prompt_id=saved.ids[0], generation_ids=sorted([said.left, said.right]), priority=PRIORITY)
        (row,) = save_matchups(self.db, [pair])
        return row

    @act(UserRole.researcher, audit="playground.archive", about="key")
    def archive(self, key: str, *, archived: bool = True) -> ChatRow:
        """Take a chat out of the list, or put it back; nothing is deleted."""

        def change(chat: Chat) -> None:
            chat.archived = archived

        return chat_store.change_chat(self.db, key, self.person.name, change)

    def _reveal(self, chat: ChatRow) -> ChatRow:
        if not chat.hides_names:
            return chat

        def change(value: Chat) -> None:
            value.revealed = True

        return chat_store.change_chat(self.db, chat.id, self.person.name, change)

    def _conversation(self, chat: ChatRow, turn: int) -> list[dict[str, str]]:
        """What is asked in a turn: the system message, and the kept reply of each turn before."""
        replies = self.replies(chat)
        messages = [{"role": "system", "content": chat.system}] if chat.system else []
        for said in chat.said[:turn]:
            reply = said.reply_of(said.kept) or said.left or said.right
            messages.append({"role": "user", "content": said.user})
            messages.append({"role": "assistant", "content": replies[str(reply)].text})
        return [*messages, {"role": "user", "content": _turn(chat, turn).user}]

    def _keep(self, reply: Reply, drawn: dict[str, Any]) -> Event:
        """Save a finished reply and return the last event; a reply without text is an error and is not saved."""
        if drawn["unfinished"] or not drawn["text"].strip():
            why = (
                "It ended inside its reasoning: raise the longest reply, which counts that too."
                if drawn["unfinished"]
                else "It was stopped before it said anything."
                if drawn["stopped"]
                else "The reply is empty. Ask for another one."
            )
            return {"error": why}
        chat, side = reply.chat, reply.side
        messages = self._conversation(chat, reply.turn)
        saved = save_prompts(self.db, [Prompt(messages=messages, tags=[ASKED_HERE])])
        sampling = dict(chat.sampling)
        if drawn["stopped"]:
            sampling["max_new_tokens"] = max(1, drawn["tokens"])  # drawn again, it would end where it was stopped
        policy = chat.left_id if side is Side.left else chat.right_id
        (row,) = save_generations(
            self.db,
            [
                Generation(
                    prompt_id=saved.ids[0],
                    policy_id=str(policy),
                    text=drawn["text"],
                    seed=reply.seed,
                    sampling=sampling,
                    finish_reason=CUT if drawn["stopped"] else drawn["finish_reason"],
                    tokens=drawn["tokens"],
                    reasoning=drawn["reasoning"] or None,
                )
            ],
        )
        fields: dict[str, Any] = {side.value: row.id, "verdict": None, "matchup_id": None, "kept": Side.left}
        chat_store.change_turn(self.db, chat.id, self.person.name, reply.turn, words=row.text, **fields)
        return {"done": row, "seconds": drawn["seconds"], "stopped": drawn["stopped"]}


def _turn(chat: ChatRow, index: int) -> ChatTurn:
    if not 0 <= index < len(chat.turns):
        raise NotFound("turn", str(index))
    return chat.said[index]
